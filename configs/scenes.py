"""What each part of NLIP is worth, on procedural scenes whose noise is known.

    python -m nlip_jax sweep --config=configs/scenes.py
    python -m nlip_jax sweep --config=configs/scenes.py --arms=clip,nlip_1,ceiling --seeds=0
    python -m nlip_jax train --config=configs/scenes.py:arm=whole,seed=1 --workdir=runs/whole
    python -m nlip_jax train --config=configs/scenes.py:arm=again,seed=1,run=runs/whole

Of 20,000 pairs 40 % have the caption of another scene, and 40 % of all captions leave objects or
attributes out, drawn on its own: 36 % of the pairs are untouched. All arms are given the same
batches, in the same order, at the same rates; those that leave texts out have fewer pairs in the
contrastive loss. A seed has scenes, noise, order and first parameters of its own; all are measured
on the same held-out scenes, which are clean.
"""

from ml_collections import ConfigDict

from configs import base, evaluators

FOUR_PART = {
    "method": "nlip",
    "nlip.model": "four_part",
    "nlip.weight": 1.0,
    "model.text.causal": False,  # the one layer that encodes; one more decodes
    "nlip.lm_noise_weight": 1.0,  # pairs that are noise teach no captioning
    "nlip.lm_stride": 2,  # captioning takes more time than contrast: every other pair will do
    "nlip.text_drop": 0.8,  # captions are made from image and concepts, so most are trained so
    # Objects lie across four of the 16 patches. Top-1 after 2,400 steps, one seed: 47.8 % with one
    # patch hidden and its reconstruction, 55.7 % without.
    "nlip.mask_ratio": 0.0,
    "nlip.ir_weight": 0.0,
    # Noisy texts are left out until there are captions in place of them, which is late: captions
    # made earlier name the wrong shapes too often and are of no use.
    "nlip.completion.drop": "noise_prob",
    "nlip.completion.after": "72.5 %",
    "captions.decoding": "greedy",  # the likeliest words: drawn ones are wrong more often
    "concepts.every": "10 %",
    "concepts.max_words": 2,
}

# Name -> what differs from the others, by dotted name of the field.
ARMS = {
    "clip": {"method": "clip"},
    # CLIP with label smoothing. ALIGN's loss is twice CLIP's: the optimizer's two numbers with the
    # units of a gradient are doubled as well, which makes the updates those of CLIP's.
    "smoothing": {
        "method": "align",
        "align.label_smoothing": 0.1,
        "model.init_temperature": 0.07,
        "optimizer.clip_norm": 2.0,
        "optimizer.eps": 2e-6,
    },
    # Noise harmonization alone.
    "nlip_0.5": {"method": "nlip", "nlip.weight": 0.5},
    "nlip_1": {"method": "nlip", "nlip.weight": 1.0},
    # Targets in the likelihood's form, under which a pair that cannot be right has no gradient.
    "likelihood": {"method": "nlip", "nlip.weight": 1.0, "nlip.form": "mixture_likelihood"},
    # With smoothed targets, from the losses that training saw, without a pass over all pairs.
    "nlip_online": {"method": "nlip", "nlip.weight": 1.0, "nlip.estimate": "online"},
    # Its noise probabilities as a hard filter: texts above 1/2 are left out of the loss.
    "filter": {"method": "nlip", "nlip.weight": 1.0, "nlip.completion.drop": "noise_prob"},
    # NLIP whole, which captions what it takes for noise; and the same without retrieved concepts.
    "completion": {**FOUR_PART, "concepts.top_k": 0},
    "whole": FOUR_PART,
    # Plain towers again, on the captions of a run of `whole`: from them shapes are learned early,
    # and then, without what is wrong in them, from the pairs' own clean texts.
    "again": {
        "method": "nlip",
        "nlip.weight": 1.0,
        "nlip.completion.drop": "noise_prob",
        "nlip.completion.until": "40 %",
    },
    # The upper bound: CLIP on the pairs as they are before anything is spoilt.
    "ceiling": {
        "method": "clip",
        "data.synthetic.mismatched": 0.0,
        "data.synthetic.incomplete": 0.0,
    },
}

# What the sweep runs and shows.
SWEEP = {
    "arms": {
        "clip": "CLIP",
        "smoothing": "CLIP, label smoothing",
        "nlip_0.5": "NLIP harmonization, 0.5",
        "nlip_1": "NLIP harmonization, 1",
        "likelihood": "NLIP harmonization, likelihood",
        "nlip_online": "NLIP harmonization, 1, no pass",
        "filter": "NLIP as a hard filter",
        "completion": "NLIP completion, no concepts",
        "whole": "NLIP whole",
        "again": "NLIP again, on its captions",
        "ceiling": "CLIP on clean pairs",
    },
    "uses": {"again": "whole"},
    "seeds": (0, 1, 2),
    "baseline": "clip",
    "ceiling": "ceiling",
    "headlines": {
        "zero_shot/scenes/top1": "zero-shot top-1",
        "retrieval/scenes/image_to_text/recall@1": "image-to-text recall@1",
    },
    "others": {
        "retrieval/scenes/text_to_image/recall@1": "text-to-image recall@1",
        "noise/auc": "AUC, mismatched",
        "noise/auc_incomplete": "AUC, incomplete",
        "caption/scenes/cider": "CIDEr-D, held out",
        # Of what the captions for incomplete pairs name: is it there, and how much of it is named?
        "completion/incomplete/coloured_object_precision": "objects named rightly",
        "completion/incomplete/coloured_object_recall": "objects named",
        "completion/own/incomplete/coloured_object_recall": "named before",
    },
}


def get_config(arg: str | None = None) -> ConfigDict:
    given = dict(part.partition("=")[::2] for part in (arg or "arm=whole").split(","))
    arm, seed, run = given.pop("arm", ""), given.pop("seed", "0"), given.pop("run", "")
    if arm not in ARMS or given or not seed.isdecimal() or bool(run) != (arm in SWEEP["uses"]):
        raise ValueError(
            f"scenes.py takes arm={'|'.join(ARMS)}[,seed=N], and with arm=again also "
            f"run=FOLDER of a finished run of arm=whole, got {arg!r}"
        )

    c = base.get_config()
    c.seed = int(seed)
    c.total = "4000 steps"
    c.batch_size = 128
    c.data.synthetic.seed = c.seed
    c.data.synthetic.mismatched = 0.4
    c.data.synthetic.incomplete = 0.4
    c.data.synthetic.independent = True
    c.data.cache = "memory"
    c.data.threads = 1  # rows come from memory: more threads only wait for one another
    c.tokenizer.vocab_size = 400
    c.tokenizer.context_length = 24

    c.model.embed_dim = 64
    c.model.scan = False  # two layers run faster unrolled
    tiny = {"width": 64, "depth": 2, "heads": 2}
    c.model.image.update({**tiny, "patch_size": 8, "pool": "mean"})
    c.model.text.update({**tiny, "depth": 1})  # with two, shapes are learned later
    c.model.decoder.update({"depth": 1, "heads": 2})
    c.model.image_decoder.update({"width": 32, "depth": 1, "heads": 2})

    c.nlip.warmup = "7.5 %"  # an AUC of 0.95 there, and of 0.99 at the second estimate
    c.nlip.reestimate_every = "10 %"
    c.concepts.max_tokens = 3  # words of scenes are short
    c.optimizer.learning_rate = 1e-3
    c.checkpoint.every = "500 steps"
    c.log.every = "50 steps"
    c.log.tensorboard = False

    single = evaluators.class_scenes()
    single.images_per_class = 50
    c.evaluators.zero_shot.scenes = evaluators.zero_shot("class_scenes", single)
    held_out = base.synthetic_source()
    held_out.update({"num_examples": 2000, "split": "validation"})
    c.evaluators.retrieval.scenes = evaluators.retrieval("synthetic", held_out)
    c.update_from_flattened_dict(ARMS[arm])
    if run:
        c.nlip.completion.captions = run
        c.tokenizer.model = f"{run}/tokenizer.model"
    if c.nlip.model == "four_part":
        c.evaluators.caption.scenes = evaluators.caption("synthetic", held_out)
    return c
