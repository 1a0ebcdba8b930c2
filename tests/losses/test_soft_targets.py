"""Targets that another similarity predicts, as TCL and ProtoCLIP published them."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nlip_jax.losses import targets
from nlip_jax.losses.engine import IMPLEMENTATIONS
from nlip_jax.losses.sides import Affine, Side
from nlip_jax.losses.soft_targets import soft_partner, target_logit


@functools.partial(jax.jit, static_argnames="case")
def loss_of(query, candidates, own, scale, *, teacher=None, soft_share=1.0, case):
    """Mean cross entropy; a teacher is (queries, candidates, scale), None for hard targets."""
    statistics = case.engine.queries(
        case.problem, Side(query), Side(candidates), Affine(scale=scale, bias=0.0), own=own
    )
    if teacher is None:
        return targets.identity(statistics).mean()
    *sides, teacher_scale = teacher
    partner = soft_partner(*sides, candidates, scale=teacher_scale, tile=case.tile)
    wanted = target_logit(
        query, statistics.positive, partner, scale=scale, soft_share=soft_share
    )
    return targets.expected(statistics, wanted).mean()


# --- momentum-mixed targets over a queue ----------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_queue_equals_the_golden_values(shared, impl, share):
    """TCL's cross-modal alignment: six queries over six momentum features and a queue of 24."""
    golden = np.load(shared / "golden/tcl_ita.npz")
    variant, case = f"pretrain_alpha{share}", cases.Case(impl=impl, devices=3)
    momentum = {side: golden[f"{side}_feat_m"] for side in ("image", "text")}
    candidates = {
        side: np.concatenate([momentum[side], golden[f"{side}_queue"].T]) for side in momentum
    }

    def loss(image_feat, text_feat, temp):
        def towards(query, mine, other):
            # The teacher's temperature is the student's: no gradient may come by that way.
            teacher = momentum[mine], candidates[other], 1 / temp
            return loss_of(
                query,
                candidates[other],
                np.arange(6),
                1 / temp,
                teacher=teacher,
                soft_share=share,
                case=case,
            )

        both = towards(image_feat, "image", "text"), towards(text_feat, "text", "image")
        return sum(both) / 2, both

    with jax.enable_x64(True):
        run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        names = "image_feat", "text_feat", "temp"
        inputs = [np.float64(golden[name]) for name in names]
        (value, both), gradients = jax.device_get(run(*inputs))
    right = {name: golden[f"{variant}/{name}"] for name in ("loss_cma", "loss_i2t", "loss_t2i")}
    np.testing.assert_allclose((value, *both), list(right.values()), rtol=1e-7)
    for name, gradient in zip(names, gradients, strict=True):
        np.testing.assert_allclose(gradient, golden[f"{variant}/grad_{name}"], atol=1e-8)


# --- prototypes -----------------------------------------------------------------------------------

SIDES = {"img2text": ("image", "text"), "text2img": ("text", "image")}


@pytest.mark.parametrize("impl", ["dense", "ring"])
@pytest.mark.parametrize(
    "variant",
    ["pbt_soft_T0.01", "pbt_soft_T0.1", "pbt_hard", "nopbt_soft_T0.01", "nopbt_hard"],
)
def test_prototypes_equal_the_golden_values(shared, variant, impl):
    """ProtoCLIP: prototypes of one side as candidates of the other, six for eight devices."""
    golden = np.load(shared / "golden/protoclip.npz")
    kind, *temperature = variant.split("_soft_T")
    case = cases.Case(impl=impl, devices=8)

    def loss(image, text, log_scale):
        losses = []
        for mine, other in SIDES.values():
            centroids = golden[f"kmeans_{other}_centroids"]
            labels = golden[f"kmeans_{other}_labels"][golden["batch_index"]].astype(np.int32)
            translated = golden[f"pbt_{mine}_from_{other}"]
            prototypes = translated if kind.startswith("pbt") else centroids
            teacher = None
            if temperature:
                teacher = centroids[labels], centroids, 1 / float(*temperature)
            query = {"image": image, "text": text}[mine]
            losses.append(
                loss_of(query, prototypes, labels, jnp.exp(log_scale), teacher=teacher, case=case)
            )
        return sum(losses) / 2, losses

    check(golden, variant, loss, [f"loss_{name}" for name in SIDES], "loss_proto")


def test_prototypes_of_external_features_equal_the_golden_values(shared):
    golden = np.load(shared / "golden/protoclip.npz")
    labels = golden["kmeans_external_labels"][golden["batch_index"]].astype(np.int32)

    def loss(image, text, log_scale):
        losses = [
            loss_of(
                query,
                golden[f"pbt_{side}_from_external"],
                labels,
                jnp.exp(log_scale),
                case=cases.Case(),
            )
            for side, query in (("image", image), ("text", text))
        ]
        return sum(losses) / 2, losses

    names = "loss_img2ext", "loss_text2ext"
    check(golden, "external_hard", loss, names, "loss_proto_external")


def check(golden, variant, loss, parts, whole):
    inputs = {
        "grad_image_projected": golden["batch_image_projected"],
        "grad_text_projected": golden["batch_text_projected"],
        "grad_log_scale_proto": golden["log_scale_proto"],
    }
    with jax.enable_x64(True):
        run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        (value, losses), gradients = jax.device_get(run(*map(np.float64, inputs.values())))
    right = [golden[f"{variant}/{name}"] for name in (whole, *parts)]
    np.testing.assert_allclose([value, *losses], right, rtol=1e-6)
    for name, gradient in zip(inputs, gradients, strict=True):
        np.testing.assert_allclose(gradient, golden[f"{variant}/{name}"], rtol=1e-6, atol=1e-7)


# --- the partner ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1, 4, 100])
def test_a_partner_is_the_mean_of_the_candidates(tile):
    rng = np.random.default_rng(0)
    teacher, theirs, ours = (rng.normal(size=shape) for shape in ((3, 4), (10, 4), (10, 5)))
    valid = np.arange(10) % 4 != 1
    valid[:4] = False  # a whole tile without any
    with jax.enable_x64(True):
        found = soft_partner(teacher, theirs, ours, scale=30.0, valid=valid, tile=tile)
    for query, partner in zip(teacher, found, strict=True):
        share = np.exp(reference.log_softmax(30 * theirs[valid] @ query))
        np.testing.assert_allclose(partner, share @ ours[valid], rtol=1e-12)


def test_a_partner_is_a_constant():
    x, scale = jnp.eye(3), jnp.float32(2.0)
    gradients = jax.grad(
        lambda a, b, c, s: soft_partner(a, b, c, scale=s).sum(), argnums=(0, 1, 2, 3)
    )(x, x, x, scale)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0.0)


def test_a_queue_may_be_kept_in_bfloat16():
    queue = jnp.asarray(cases.unit(np.random.default_rng(0), 9, 4), jnp.bfloat16)
    found = soft_partner(queue[:2], queue, queue, scale=jnp.float32(5.0), tile=4)
    rounded = queue.astype(jnp.float32)
    expected = soft_partner(rounded[:2], rounded, rounded, scale=5.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
