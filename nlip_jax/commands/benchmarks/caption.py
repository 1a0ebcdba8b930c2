"""Captions with a cache against loops that compute again what they knew, in the same run.

All three are compiled functions that find the same greedy captions. One encodes once and decodes
token by token, as captioning does; one keeps what the encoders gave and runs the decoder over whole
rows for every token; one runs the encoders for every token, too.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax.commands.benchmarks.caption_setting import BOS, EOS, PAD, Setting
from nlip_jax.errors import RunError
from nlip_jax.methods.base import scale_image
from nlip_jax.methods.captioner import Captioner
from nlip_jax.methods.similarities import DOT
from nlip_jax.models.decoding.decoding import Decoding
from nlip_jax.models.four_part import FourPart
from nlip_jax.types import Array, PyTree


def run(setting: Setting | None = None) -> dict[str, float]:
    """Times all ways in turns; medians over the calls.

    Args:
      setting: sizes; None: those of configs/quickstart.py.

    Returns:
      caption/{cached, decoder_again, all_again}_per_second, captions a second;
      caption/over_decoder_again and caption/over_all_again, how many times as fast the first is;
      caption/{batch_size, pieces}; caption/distinct, different captions among all.

    Raises:
      RunError: the ways find different captions.
    """
    setting = setting or Setting()
    # Products rounded to TF32 or bfloat16 would differ by way.
    with jax.default_matmul_precision("highest"):
        inputs = setting.inputs()
        ways = {name: jax.jit(functools.partial(way, setting)) for name, way in WAYS.items()}
        rows = {name: np.asarray(way(*inputs)) for name, way in ways.items()}
        for name in ways:
            if not np.array_equal(rows[name], rows["cached"]):
                raise RunError(f"captions by {name} are others than by cached: report this")
        seconds = _take_turns(ways, inputs, setting.calls)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        **{f"caption/{name}_per_second": setting.batch_size / t for name, t in medians.items()},
        "caption/over_decoder_again": medians["decoder_again"] / medians["cached"],
        "caption/over_all_again": medians["all_again"] / medians["cached"],
        "caption/batch_size": float(setting.batch_size),
        "caption/pieces": float(setting.pieces),
        "caption/distinct": float(len(np.unique(rows["cached"], axis=0))),
    }


def _take_turns(
    ways: dict[str, Callable[..., Array]], inputs: tuple, calls: int
) -> dict[str, list[float]]:
    """Seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(calls):
        for name, way in ways.items():
            begun = time.perf_counter()
            jax.block_until_ready(way(*inputs))
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def _cached(setting: Setting, variables: PyTree, image: Array, concepts: Array) -> Array:
    """As captioning does it."""
    length = {"min_length": setting.pieces, "max_length": setting.pieces}
    captioner = Captioner(
        model=setting.model(),
        similarity=DOT,
        decoding=Decoding(kind="greedy", **length),
        bos=BOS,
        eos=EOS,
        prompt=(),
        context_length=setting.context_length,
    )
    return captioner(variables, image, concepts, None)


def _all_again(setting: Setting, variables: PyTree, image: Array, concepts: Array) -> Array:
    """Everything anew for every token."""
    apply = functools.partial(setting.model().apply, variables)

    def logits(rows: Array, place: Array) -> Array:
        # What hangs on the rows cannot be moved out of the loop by the compiler.
        given, words, own = jax.lax.optimization_barrier((image, concepts, rows))
        seen = apply(scale_image(given), None, method="encode_masked_image")["image_memory"]
        hidden = apply(seen, None, words, own, method="caption_hidden")
        return hidden[:, place] @ apply(method="output_table").T

    return _loop(setting, logits)


def _decoder_again(setting: Setting, variables: PyTree, image: Array, concepts: Array) -> Array:
    """The decoder anew for every token, over whole rows."""
    apply = functools.partial(setting.model().apply, variables)

    def encode(model: FourPart) -> tuple[Array, Array]:
        seen = model.encode_masked_image(scale_image(image), None)["image_memory"]
        return model.caption_memory(seen, None, concepts)

    memory, mask = apply(method=encode)

    def logits(rows: Array, place: Array) -> Array:
        given, own = jax.lax.optimization_barrier((memory, rows))

        def decode(model: FourPart) -> Array:
            return model.decoder(model.text.embed(own[:, :-1]), own[:, :-1] != PAD, given, mask)

        return apply(method=decode)[:, place] @ apply(method="output_table").T

    return _loop(setting, logits)


def _loop(setting: Setting, logits: Callable[[Array, Array], Array]) -> Array:
    """Greedy rows by a function of the rows so far and the place of their last token."""

    # All captions have the same length here, so [eos] waits, too.
    held_back = np.isin(np.arange(setting.vocab_size), (PAD, BOS, EOS))

    def advance(place: Array, rows: Array) -> Array:
        found = jnp.where(held_back, -jnp.inf, logits(rows, place))
        return rows.at[:, place + 1].set(jnp.argmax(found, axis=1).astype(jnp.int32))

    rows = jnp.full((setting.batch_size, setting.context_length), PAD, jnp.int32)
    rows = jax.lax.fori_loop(0, setting.pieces, advance, rows.at[:, 0].set(BOS))
    return rows.at[:, setting.pieces + 1].set(EOS)


WAYS = {"cached": _cached, "decoder_again": _decoder_again, "all_again": _all_again}
