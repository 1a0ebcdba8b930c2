"""NLIP on real photographs: Flickr8k with 40 % of the captions exchanged on purpose.

    launch/local.sh --config=configs/flickr8k.py:FOLDER

FOLDER (default: data/flickr8k) holds train/*.tar and val/*.tar in the layout of img2dataset, five
captions an image in the json field "captions". On two CPU cores this tiny model is a smoke test of
about a quarter of an hour; `:FOLDER,size=S/16` is a ViT-S/16 at 112 pixels for one GPU. With
`,model=four_part` it is NLIP whole, which also captions, in about twice the time.
"""

from ml_collections import ConfigDict

from configs import base, evaluators
from nlip_jax.models.sizes import variant

CHOICES = {"size": ("tiny", "S/16"), "model": ("dual_encoder", "four_part")}


def get_config(arg: str | None = None) -> ConfigDict:
    folder, _, rest = (arg or "").partition(",")
    given = dict(part.partition("=")[::2] for part in rest.split(",")) if rest else {}
    chosen = {name: given.pop(name, choices[0]) for name, choices in CHOICES.items()}
    if given or any(value not in CHOICES[name] for name, value in chosen.items()):
        known = "".join(f"[,{name}={'|'.join(choices)}]" for name, choices in CHOICES.items())
        raise ValueError(f"flickr8k.py takes FOLDER{known}, got {arg!r}")
    size, folder = chosen["size"], folder or "data/flickr8k"

    c = base.get_config()
    c.batch_size = 256
    c.data.source = "tar"
    c.data.tar.shards = f"{folder}/train/*.tar"
    c.data.tar.caption_key = "json:captions"
    c.data.plant_mismatch = 0.4
    c.data.flip = True  # people mirror well; few captions say left or right
    c.data.crop_scale = (0.6, 1.0)
    c.data.cache = "memory"
    c.data.resize = "squash"
    c.tokenizer.vocab_size = 4000
    c.tokenizer.context_length = 32
    c.optimizer.learning_rate = 1e-3
    c.nlip.weight = 1.0
    c.schedule.warmup = "2 epochs"

    if size == "tiny":
        c.total = "20 epochs"
        c.nlip.warmup = "6 epochs"
        c.data.image_size = 64
        c.model.embed_dim = 128
        tiny = {"width": 96, "depth": 2, "heads": 3}
        c.model.image.update({**tiny, "patch_size": 16, "pool": "mean"})
        c.model.text.update(tiny)
    else:
        c.total = "40 epochs"
        c.nlip.warmup = "8 epochs"
        c.data.image_size = 112
        c.model.embed_dim = 384
        c.model.dtype = "bfloat16"
        c.model.image.update({**variant(size), "pool": "mean"})
        c.model.text.update({"width": 384, "depth": 6, "heads": 6})

    if chosen["model"] == "four_part":
        c.nlip.model = "four_part"
        c.nlip.lm_noise_weight = 1.0  # pairs that are noise teach no captioning
        c.nlip.text_drop = 0.8  # captions are made from image and concepts: most are trained so
        c.nlip.mask_ratio = 0.25
        c.nlip.completion.after = "10 %"
        c.nlip.completion.every = "20 %"
        c.model.text.causal = False
        c.model.text.depth //= 2  # as many layers for texts as two towers have
        c.model.decoder.update({"depth": c.model.text.depth, "heads": c.model.text.heads})
        c.model.image_decoder.update(
            {"width": c.model.text.width, "depth": 1, "heads": c.model.text.heads}
        )

    held_out = base.tar_source()
    held_out.update({"shards": f"{folder}/val/*.tar", "caption_key": "json:captions"})
    c.evaluators.retrieval.flickr8k = evaluators.retrieval("tar", held_out)
    if chosen["model"] == "four_part":
        c.evaluators.caption.flickr8k = evaluators.caption("tar", held_out)
    return c
