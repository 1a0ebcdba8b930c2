"""The batches that every implementation of the loss engine goes through, and their right answers.

One compiled function has the losses of all targets; which one counts is an argument. Its inputs
have pairs that only fill up, with NaN in them, images and texts without a token, and duplicates.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import reference
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.losses import similarity, soft_targets, targets
from nlip_jax.losses.contrastive import contrast
from nlip_jax.losses.engine import Engine
from nlip_jax.losses.normalisers import NORMALISERS
from nlip_jax.losses.sides import Affine, Problem, Side

PAIRS = 21  # no multiple of the tile, and of 3 devices only
SIMILARITIES = {"dot": similarity.dot, "token_max": similarity.token_max}
REFERENCE = {"dot": reference.dot_similarity, "token_max": reference.token_max_similarity}
FORMS = tuple(reference.FORMS)
SOFT_SHARES = (0.0, 0.4, 1.0)  # hard targets, momentum-mixed ones, those of the teacher alone
SCALE, BIAS = 4.0, -1.25

compiled = functools.partial(jax.jit, static_argnames="case")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One way to compute a loss; the defaults are the plain one."""

    impl: str = "dense"
    devices: int = 1
    similarity: str = "dot"
    normaliser: str = "softmax"
    duplicates: str = "negatives"
    dtype: str = "float64"
    tile: int = 4

    @property
    def engine(self) -> Engine:
        mesh = tiny.mesh_of(self.devices)
        return Engine(impl=self.impl, mesh=mesh, tile=self.tile, duplicates=self.duplicates)

    @property
    def problem(self) -> Problem:
        return Problem(
            similarity=SIMILARITIES[self.similarity], normaliser=NORMALISERS[self.normaliser]
        )

    @property
    def plain(self) -> "Case":
        return dataclasses.replace(self, impl="dense", devices=1, dtype="float64")

    @property
    def forms(self) -> tuple[str, ...]:
        """The mixture is for pairs with one partner."""
        return FORMS[:-1] if self.duplicates == "positives" else FORMS

    @property
    def soft_shares(self) -> tuple[float, ...]:
        """Tokens have no mean that would stand for several candidates."""
        return SOFT_SHARES if self.similarity == "dot" else SOFT_SHARES[:1]

    def inputs(self, *trees):
        """Arrays in the case's precision, rows split over its devices where they divide."""
        mesh = self.engine.mesh

        def put(a):
            a = np.asarray(a)
            a = a.astype({"f": self.dtype, "i": np.int32, "b": bool}[a.dtype.kind])
            split = a.ndim > 0 and len(a) % mesh.size == 0
            return jax.device_put(a, NamedSharding(mesh, P(mesh.axis_names) if split else P()))

        return jax.tree.map(put, trees)


def product(**choices) -> list[tuple]:
    """All cases of these choices; each with the values of those that are no fields of a case."""
    # On one device, `rows` is `dense` and `ring` is `tiled`.
    one, several = ("dense", "tiled"), ("dense", "rows", "tiled", "ring")
    ways = [*itertools.product(one, (1,)), *itertools.product(several, (2, 3, 8))]
    made = []
    for (impl, devices), *values in itertools.product(ways, *choices.values()):
        fields = dict(zip(choices, values, strict=True))
        others = [fields.pop(name) for name in choices if name not in Case.__dataclass_fields__]
        made.append((Case(impl=impl, devices=devices, **fields), *others))
    return made


def check_all(check, parameters) -> None:
    """Checks them in turn; Linux grants a process 65,530 mappings, of which a case takes 120."""
    for number, values in enumerate(parameters):
        check(*values)
        if number % 100 == 99:
            jax.clear_caches()


def name_of(value) -> str:
    """Of a parameter of a test."""
    if not isinstance(value, Case):
        return str(value)
    fields = (getattr(value, field.name) for field in dataclasses.fields(value))
    return "-".join(map(str, fields))


# --- pairs ----------------------------------------------------------------------------------------


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@functools.cache
def sides(similarity, count=PAIRS, seed=0):
    """Features of both sides and their masks; a pooled embedding is the first token."""
    rng = np.random.default_rng(seed)
    features = unit(rng, count, 4, 5), unit(rng, count, 3, 5)
    if similarity == "dot":
        return tuple(x[:, 0] for x in features), (None, None)
    masks = tuple(rng.random((count, length)) < 0.7 for length in (4, 3))
    masks[0][1] = masks[1][2] = False  # an image and a text without any token
    return features, masks


@functools.cache
def pair_batch(similarity, *, count=PAIRS, filler=0, keys=False):
    """The first `count`, of which 4 and 20 only fill up, as do `filler` more that are added."""
    features, masks = sides(similarity)
    valid = np.ones(PAIRS, bool)
    valid[[4, 20]] = False
    image_id, caption_id = np.arange(PAIRS), np.arange(PAIRS)
    image_id[[3, 4]] = image_id[[0, 2]]  # of which 4 is not valid
    image_id[8:12] = 8
    caption_id[[5, 7]] = caption_id[[1, 3]]  # the image of 3 is that of 0
    caption_id[8:10] = 8
    batch = {
        "features": [
            np.where(valid.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan) for x in features
        ],
        "masks": masks,
        "valid": valid,
        "keys": (image_id[:, None], np.stack([caption_id, -caption_id], 1)) if keys else (),
        "weight": np.random.default_rng(1).random(PAIRS),  # some are beyond what counts
    }

    def fill(path, a):
        value = np.nan if path[0].key == "features" else 0
        width = [(0, filler)] + [(0, 0)] * (a.ndim - 1)
        return np.pad(a[:count], width, constant_values=value)

    return jax.tree_util.tree_map_with_path(fill, batch)


@compiled
def _pairs(batch, choice, affine, *, case):
    adaptive = targets.NOISE_ADAPTIVE[case.normaliser]
    weight = batch["weight"]
    forms = {
        "identity": targets.identity,
        "smoothed": functools.partial(adaptive["smoothed_targets"], weight=weight),
        "label_smoothed": functools.partial(targets.label_smoothed, share=0.1),
        "mixture_likelihood": functools.partial(adaptive["mixture_likelihood"], weight=weight),
    }

    def chosen(statistics):
        return sum(
            share * forms[form](statistics)
            for form, share in zip(case.forms, choice, strict=False)
        )

    def loss(features, scale, bias):
        images, texts = (
            Side(x, mask=mask, valid=batch["valid"], keys=batch["keys"])
            for x, mask in zip(features, batch["masks"], strict=True)
        )
        found = contrast(
            case.engine, case.problem, images, texts, targets=chosen, scale=scale, bias=bias
        )
        return found.loss, found.pair_loss

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(batch["features"], *affine)


def pairs(case, form, batch, *, scale=SCALE, bias=BIAS):
    """(loss, pair losses), (gradients of features, scale and bias); on the host."""
    choice = np.eye(len(FORMS))[FORMS.index(form)]
    with jax.enable_x64(case.dtype == "float64"):
        return jax.device_get(_pairs(*case.inputs(batch, choice, (scale, bias)), case=case))


def right_pairs(case, form, batch, *, scale=SCALE, bias=BIAS):
    """Loss and pair losses of the reference."""
    alike = REFERENCE[case.similarity](*batch["features"], *batch["masks"])
    weight, valid = batch["weight"], batch["valid"]
    losses = reference.pair_losses(
        *(scale * s + bias for s in alike),
        form,
        np.full(len(weight), 0.1) if form == "label_smoothed" else weight,
        normaliser=case.normaliser,
        valid=valid,
        keys=batch["keys"],
        duplicates=case.duplicates,
    )
    return losses.sum() / max(1, valid.sum()), losses


# --- queries: a queue of momentum features, prototypes --------------------------------------------


@functools.cache
def query_batch(kind, similarity="dot", count=PAIRS):
    """Queries, candidates, and a teacher of each; some of the queue's places are empty."""
    candidates = {"queue": count + 9, "prototypes": 5}[kind]
    (ours, _), (mask, _) = sides(similarity, count)
    (theirs, _), (their_mask, _) = sides(similarity, candidates, seed=2)
    rng = np.random.default_rng(3)
    valid = np.ones(candidates, bool)
    valid[count + 2 : count + 5] = False
    return {
        "features": [ours, theirs],
        "masks": (mask, their_mask),
        "valid": valid,
        "own": np.arange(count) if kind == "queue" else rng.integers(0, candidates, count),
        "teacher": unit(rng, count, 7),
        "teacher_candidates": unit(rng, candidates, 7),
    }


@compiled
def _queries(batch, soft_share, affine, *, case):
    def loss(features, scale, bias):
        ours, theirs = (Side(x, mask=m) for x, m in zip(features, batch["masks"], strict=True))
        statistics = case.engine.queries(
            case.problem,
            ours,
            theirs.replace(valid=batch["valid"]),
            Affine(scale=scale, bias=bias),
            own=batch["own"],
        )
        if case.similarity != "dot":  # there is no one partner of several
            losses = targets.identity(statistics)
            return jnp.mean(losses), losses
        partner = soft_targets.soft_partner(
            batch["teacher"],
            batch["teacher_candidates"],
            theirs.features,
            scale=2 * scale,
            valid=batch["valid"],
            tile=case.tile,
        )
        wanted = soft_targets.target_logit(
            ours.features,
            statistics.positive,
            partner,
            scale=scale,
            bias=bias,
            soft_share=soft_share,
        )
        losses = targets.expected(statistics, wanted)
        return jnp.mean(losses), losses

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(batch["features"], *affine)


def queries(case, soft_share, batch, *, scale=SCALE, bias=BIAS):
    """As `pairs`; no gradient leads to the partners of soft targets."""
    with jax.enable_x64(case.dtype == "float64"):
        return jax.device_get(_queries(*case.inputs(batch, soft_share, (scale, bias)), case=case))


def right_queries(case, soft_share, batch, *, scale=SCALE, bias=BIAS):
    """Loss and losses of the reference."""
    alike, _ = REFERENCE[case.similarity](*batch["features"], *batch["masks"])
    teacher, _ = reference.dot_similarity(batch["teacher"], batch["teacher_candidates"])
    losses = reference.soft_target_losses(
        scale * alike + bias,
        2 * SCALE * teacher,
        batch["own"],
        soft_share,
        normaliser=case.normaliser,
        valid=batch["valid"],
    )
    return losses.mean(), losses


# --- comparison -----------------------------------------------------------------------------------


def assert_equal(found, expected, *, dtype):
    """Relative to the largest value of an array; gradients of scale and bias may cancel to 0."""
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]

    def compare(a, b):
        size = np.abs(b).max() if np.ndim(b) else max(1.0, abs(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * size)

    jax.tree.map(compare, found, expected)
