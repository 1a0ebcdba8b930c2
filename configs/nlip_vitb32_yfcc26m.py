"""As configs/nlip_vitb16_yfcc26m.py with patches of 32 pixels: a quarter of the image tokens.

    python -m nlip_jax train --config=configs/nlip_vitb32_yfcc26m.py:data/yfcc26m

The size at which FILIP reports its ablations on the same data (published: CLIP 30.4 %, FILIP 37.8 %
zero-shot top-1 on ImageNet; Yao et al., ICLR 2022, table 4). Of NLIP at this size nothing is known:
all numbers are those of B/16, with the labels that they have there.
"""

from ml_collections import ConfigDict

from configs import nlip_vitb16_yfcc26m
from nlip_jax.models.sizes import variant


def get_config(arg: str | None = None) -> ConfigDict:
    c = nlip_vitb16_yfcc26m.get_config(arg)
    c.model.image.update(variant("B/32"))
    return c
