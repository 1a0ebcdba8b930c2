import pytest

from nlip_jax.errors import UsageError
from nlip_jax.models.sizes import SIZES, variant
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer


def test_every_size_makes_both_towers():
    for name in SIZES:
        tower = VisionTransformer(**variant(f"{name}/14"), image_size=224)
        assert (tower.patch_size, tower.num_tokens) == (14, 257)
        assert TextTransformer(**variant(name), vocab_size=9, context_length=9).width == tower.width


def test_well_known_sizes():
    assert variant("S/16") == {
        "patch_size": 16, "width": 384, "depth": 12, "heads": 6, "mlp_dim": 1536,
    }  # fmt: skip
    assert variant("B") == {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}


@pytest.mark.parametrize("name", ["XL/16", "B/0", "B/", "b/16", "", "B/16/2"])
def test_unknown_names_list_the_choices(name):
    with pytest.raises(UsageError, match="mu, Ti, S, M, B, L, So400m, H, g, G"):
        variant(name)
