"""The contender has our shapes, and trains."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.commands.benchmarks.model_setting import TOY
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.flops import dual_encoder_flops
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer

torch = pytest.importorskip("torch")
contender = pytest.importorskip("open_clip_style")

SIZES = types.SimpleNamespace(**dataclasses.asdict(TOY))


@pytest.fixture(scope="module")
def ours() -> DualEncoder:
    s = SIZES
    return DualEncoder(
        image=VisionTransformer(
            s.patch_size, s.image_size, s.image_width, s.image_depth, s.image_heads
        ),
        text=TextTransformer(
            s.vocab_size, s.context_length, s.text_width, s.text_depth, s.text_heads
        ),
        embed_dim=s.embed_dim,
    )


def test_towers_have_as_many_parameters(ours):
    image = jnp.zeros((1, SIZES.image_size, SIZES.image_size, 3))
    tokens = jnp.ones((1, SIZES.context_length), jnp.int32)
    params = jax.eval_shape(ours.init, jax.random.key(0), image, tokens)["params"]
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in params.items()
    }
    theirs = contender.Clip(SIZES)
    assert counts["image"] == sum(p.numel() for p in theirs.image.parameters())
    assert counts["text"] == sum(p.numel() for p in theirs.text.parameters())
    assert sum(counts.values()) == sum(p.numel() for p in theirs.parameters())


def test_towers_do_as_much_work(ours):
    """The matmuls that PyTorch itself counts; its convolution is our patch embedding."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = contender.Clip(SIZES)
    image = torch.zeros(1, 3, SIZES.image_size, SIZES.image_size)
    tokens = torch.ones(1, SIZES.context_length, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image, tokens)
    assert counter.get_total_flops() == sum(dual_encoder_flops(ours).values())


def test_it_learns_its_batch():
    trainer = contender.Trainer(SIZES, batch=6, device="cpu", compiled=False)
    losses = [trainer.step().item() for _ in range(3)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_the_loss_is_that_of_clip():
    rng = np.random.default_rng(0)
    sides = rng.standard_normal((2, 5, 4)).astype(np.float32)
    logits = 3.0 * sides[0] @ sides[1].T
    both = [x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (logits, logits.T)]
    expected = -np.mean([np.diag(x).mean() for x in both])
    found = contender.contrast(*map(torch.tensor, sides), torch.tensor(3.0))
    assert found.item() == pytest.approx(expected, rel=1e-5)
