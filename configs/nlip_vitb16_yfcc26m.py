r"""NLIP at full size: ViT-B/16 on the 26 million pairs of filtered YFCC100M.

    python -m nlip_jax prepare --config=configs/base.py --config.data.source=tar \
        --config.data.tar.shards='raw/*.tar' --output=data/yfcc26m \
        --rules=min_side=199,max_aspect=3,max_images=10,language=package.module:accepts
    python -m nlip_jax train --config=configs/nlip_vitb16_yfcc26m.py:data/yfcc26m

The argument is FOLDER[,sets=FOLDER]: ArrayRecord shards, and the twelve sets of the paper to
evaluate on (configs/EVALUATION_SETS.md).

No code of NLIP was published (Huang et al., AAAI 2023, arXiv 2212.07086), and not all of its
numbers are known to us. Each line that sets one says where it comes from:

  published   in the paper, or in the paper of FILIP (Yao et al., ICLR 2022, arXiv 2111.07783),
              whose authors and data rules NLIP shares, where FILIP is named
  restated    as published, but read in a summary of the paper rather than in the paper
  remembered  believed to be in the paper; not verified
  default     not known, and chosen here for the reason given

The paper used 32 V100 (restated). Its data rules are FILIP's (restated): no image with a side
below 200 pixels or an aspect ratio above 3; English texts that say something, so no file names; no
text that comes more than ten times. The first command above leaves out the pairs that break them,
with a function of yours that accepts such texts.
"""

import math

from ml_collections import ConfigDict

from configs import base, evaluation_sets
from nlip_jax.models.sizes import variant


def get_config(arg: str | None = None) -> ConfigDict:
    folder, *rest = (arg or "data/yfcc26m").split(",")
    options = dict(part.partition("=")[::2] for part in rest)
    sets = options.pop("sets", "")
    if options or not folder:
        raise ValueError(f"takes FOLDER[,sets=FOLDER], got {arg!r}")

    c = base.get_config()
    c.method = "nlip"
    c.total = "50 epochs"  # restated
    c.batch_size = 6144  # restated

    # --- data -----------------------------------------------------------------------------------
    c.data.source = "array_record"
    c.data.array_record.shards = f"{folder}/*"
    c.data.image_size = 224  # remembered
    c.data.crop_scale = (0.9, 1.0)  # default: random crops as CLIP's
    c.data.augment.policy = "autoaugment"  # default: published for FILIP
    c.data.workers = 8  # default: of each host
    c.tokenizer.vocab_size = 49_408  # default: published for FILIP, with a vocabulary of CLIP's
    c.tokenizer.context_length = 77  # default: published for FILIP

    # --- model ----------------------------------------------------------------------------------
    c.nlip.model = "four_part"  # published: figure 2
    c.model.embed_dim = 256  # default: published for FILIP
    c.model.dtype = "bfloat16"  # default: as fast as 16 bits are, and safe without loss scaling
    c.model.remat = "dots"  # default: checkpointing of activations is published for FILIP
    c.model.image.update({**variant("B/16"), "pool": "cls"})  # B/16: remembered; pool: default
    # As BART-base, six layers of width 768 each (remembered).
    c.model.text.update({**variant("B"), "depth": 6, "causal": False})
    c.model.decoder.update({"depth": 6, "heads": 12, "mlp_dim": 3072})
    # default: MAE's decoder (He et al., CVPR 2022)
    c.model.image_decoder.update({"width": 512, "depth": 8, "heads": 16, "mlp_dim": 2048})
    c.model.init_temperature = 0.07  # default: published for FILIP; learned (remembered)

    # --- losses ---------------------------------------------------------------------------------
    c.loss.similarity = "token_max"  # remembered: FILIP's
    c.loss.token_keep = 0.25  # default: published for FILIP
    c.loss.token_group = 192  # default: the pairs of one of 32 workers, as in FILIP
    c.loss.dtype = "bfloat16"  # default: 16 bits are published for FILIP
    c.nlip.itc_weight = 1.0  # default: that there is a weight is remembered
    c.nlip.lm_weight = 1.0  # default: likewise
    c.nlip.ir_weight = 1.0  # default: equal weights
    c.nlip.mask_ratio = 0.5  # default: hardly costs quality in FLIP (Li et al., CVPR 2023)
    c.nlip.text_drop = 0.5  # default: captions are made without a text, so train that too
    c.nlip.text_mask_rate = (0.3, 0.5)  # default: around BART's 30 %
    c.nlip.text_mask_span = 3.0  # default: BART's (Lewis et al., ACL 2020)
    c.nlip.lm_label_smoothing = 0.1  # default: BLIP's (Li et al., ICML 2022)
    c.nlip.concepts_in_itc = False  # default: concepts come from the image, and would leak it

    # --- noise ----------------------------------------------------------------------------------
    c.nlip.warmup = "5 epochs"  # default: as long as the learning rate warms up
    c.nlip.reestimate_every = "0 epochs"  # default: once, which is cheapest
    c.nlip.weight = 0.5  # remembered: lambda
    c.nlip.form = "smoothed_targets"  # remembered
    c.concepts.top_k = 5  # default
    c.concepts.min_share = 4e-6  # default: about 100 captions of 26 million
    c.concepts.max_size = 20_000  # default
    c.nlip.completion.text = "noise_prob"  # default
    c.nlip.completion.after = "20 epochs"  # default: half of the run on completed texts
    c.captions.decoding = "nucleus"  # remembered
    c.captions.top_p = 0.9  # remembered
    c.captions.min_length = 5  # default: BLIP's
    c.captions.max_length = 20  # default: BLIP's
    c.captions.evaluation = "beam"  # default: BLIP's
    c.captions.beams = 3  # default: BLIP's

    # --- optimisation ---------------------------------------------------------------------------
    c.optimizer.name = "lamb"  # remembered
    # 3e-3: remembered. The rule with the square root: published for FILIP.
    c.optimizer.learning_rate = 3e-3 * math.sqrt(c.batch_size / 512)
    c.optimizer.weight_decay = 0.05  # remembered
    c.optimizer.b1 = 0.9  # default: published for FILIP
    c.optimizer.b2 = 0.999  # default: published for FILIP
    c.optimizer.eps = 1e-4  # default: published for FILIP
    # default: biases, norms, embeddings of tokens and positions, temperature: published for FILIP
    c.optimizer.no_decay = (*c.optimizer.no_decay, "embedding")
    c.optimizer.clip_norm = 1.0  # default
    c.schedule.name = "cosine"  # remembered
    c.schedule.warmup = "5 epochs"  # remembered

    c.checkpoint.every = "1000 steps"  # default: a quarter of an epoch
    c.log.every = "50 steps"  # default
    if sets:  # the twelve sets: restated; ensembles of similarities: published for FILIP
        c.evaluators.zero_shot.update(
            evaluation_sets.nlip_sets(sets, templates="filip", ensemble="similarities")
        )
    return c
