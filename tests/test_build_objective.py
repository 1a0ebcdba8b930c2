"""What each method contrasts by, and what the fields of a config may say about it."""

import math

import pytest
import tiny

from configs import base
from nlip_jax import build
from nlip_jax.build.objective import OBJECTIVES, Objective, objective
from nlip_jax.errors import UsageError
from nlip_jax.losses import similarity, targets
from nlip_jax.losses.normalisers import SIGMOID, SOFTMAX
from nlip_jax.methods.align import Align
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip

SIGMOID_NLIP = {"method": "nlip", "nlip.normaliser": "sigmoid"}
FILIP = {"method": "filip", "loss.token_keep": 0.25}


def config(**fields):
    made = base.get_config()
    made.total, made.nlip.warmup = "100 steps", "20 steps"
    made.batch_size = 128
    made.update_from_flattened_dict(fields)
    return made


def method_of(*, devices=1, **fields):
    made = config(**fields)
    model = build.make_model(made, vocab_size=100)
    clock = build.make_clock(made, num_examples=1000)
    return build.make_method(made, model=model, mesh=tiny.mesh_of(devices), clock=clock)


# --- what methods are -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind", "normaliser", "compare"),
    [
        ({"method": "clip"}, Clip, SOFTMAX, similarity.dot),
        ({"method": "siglip"}, Clip, SIGMOID, similarity.dot),
        ({"method": "filip"}, Clip, SOFTMAX, similarity.token_max),
        ({"method": "align"}, Align, SOFTMAX, similarity.dot),
        ({"method": "nlip"}, Nlip, SOFTMAX, similarity.dot),
        (SIGMOID_NLIP, Nlip, SIGMOID, similarity.dot),
        (
            {"method": "siglip", "loss.similarity": "token_max"},
            *(Clip, SIGMOID, similarity.token_max),
        ),
    ],
)
def test_methods_differ_by_what_they_are(fields, kind, normaliser, compare):
    method = method_of(**fields)
    assert type(method) is kind
    assert method.normaliser is normaliser and method.similarity.compare is compare
    assert method.has_bias == (normaliser is SIGMOID)
    assert method.model.token_features == (compare is similarity.token_max)


@pytest.mark.parametrize(
    ("fields", "temperature", "clamp", "bias"),
    [
        ({"method": "clip"}, 0.07, 100.0, None),
        ({"method": "filip"}, 0.07, 100.0, None),
        ({"method": "align"}, 1.0, 100.0, None),
        ({"method": "siglip"}, 0.1, math.inf, -10.0),
        ({"method": "nlip"}, 0.07, 100.0, None),
        (SIGMOID_NLIP, 0.1, math.inf, -10.0),
        ({"method": "siglip", "siglip.init_bias": -3.0}, 0.1, math.inf, -3.0),
        ({"method": "siglip", "model.init_temperature": 0.2}, 0.2, math.inf, -10.0),
        ({"method": "align", "model.max_logit_scale": 50.0}, 1.0, 50.0, None),
        ({"method": "test_build:own_method"}, 0.07, 100.0, None),
    ],
)
def test_where_logits_start(fields, temperature, clamp, bias):
    model = build.make_model(config(**fields), vocab_size=100)
    assert model.init_temperature == temperature
    assert model.max_logit_scale == clamp
    assert model.logit_bias_init == bias


def test_every_method_has_an_objective():
    assert set(OBJECTIVES) == {"clip", "siglip", "filip", "align", "nlip"}
    assert objective(config(method="clip")) == Objective()


def test_label_smoothing_is_the_configs():
    assert method_of(method="align").label_smoothing == 0.1
    assert method_of(method="align", **{"align.label_smoothing": 0.2}).label_smoothing == 0.2


@pytest.mark.parametrize("form", ["smoothed_targets", "mixture_likelihood"])
@pytest.mark.parametrize("normaliser", ["softmax", "sigmoid"])
def test_the_form_is_that_of_the_normaliser(form, normaliser):
    method = method_of(**{"nlip.normaliser": normaliser, "nlip.form": form})
    assert method.form is targets.NOISE_ADAPTIVE[normaliser][form]


# --- the engine -----------------------------------------------------------------------------------


def test_the_engine_is_the_configs():
    engine = method_of(
        method="clip",
        devices=8,
        **{
            "loss.impl": "ring",
            "loss.tile": 5,
            "loss.dtype": "bfloat16",
            "loss.duplicates": "ignored",
        },
    ).engine
    assert engine.impl == "ring" and engine.tile == 5 and engine.mesh.size == 8
    assert engine.dtype == "bfloat16" and engine.duplicates == "ignored"


def test_small_batches_are_dense_and_large_ones_tiled():
    assert method_of(method="clip").choice.reason.startswith("dense")
    found = method_of(method="clip", batch_size=65_536, devices=8).choice
    assert found.engine.impl == "tiled" and "65,536 pairs are more than a tile" in found.reason


def test_tokens_make_tiles_smaller_and_keeping_few_makes_them_larger():
    tiles = [
        method_of(batch_size=4096, **{"method": "filip", "loss.token_keep": share}).engine.tile
        for share in (1.0, 0.25)
    ]
    assert tiles[1] == 4 * tiles[0] < 1024
    method = method_of(**FILIP)
    assert method.token_keep == 0.25 and method.token_group == 64


# --- contradictions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "clop"}, r"config\.method='clop': choose one of clip, siglip, filip, align"),
        ({"loss.similarity": "cosine"}, r"loss\.similarity='cosine': choose one of auto, dot, tok"),
        (
            {"method": "filip", "loss.similarity": "dot"},
            r"config\.loss\.similarity='dot': method=filip is token_max by definition",
        ),
        ({"loss.impl": "chunked"}, r"config\.loss\.impl='chunked': choose one of auto, dense, row"),
        ({"loss.dtype": "float16"}, r"config\.loss\.dtype='float16': choose one of float32, bfl"),
        ({"loss.duplicates": "dropped"}, r"config\.loss\.duplicates='dropped': choose one of neg"),
        ({"loss.token_keep": 0.25}, r"config\.loss\.token_keep=0\.25: similarity=dot compares one"),
        (
            FILIP | {"batch_size": 100, "loss.token_group": 48},
            r"config\.loss\.token_group=48 does not divide config\.batch_size=100",
        ),
        ({"nlip.normaliser": "hinge"}, r"config\.nlip\.normaliser='hinge': choose one of soft"),
        ({"nlip.normaliser": "math:hypot"}, r"config\.nlip\.normaliser='math:hypot': choose"),
        ({"nlip.form": "hard"}, r"config\.nlip\.form='hard': choose one of smoothed_targets, "),
        ({"nlip.model": "single"}, r"config\.nlip\.model='single': choose one of dual_encoder"),
        (
            {"nlip.form": "mixture_likelihood", "loss.duplicates": "positives"},
            r"config\.loss\.duplicates='positives': nlip\.form='mixture_likelihood'",
        ),
        (
            {"model.init_temperature": 0.001, "model.max_logit_scale": 100.0},
            r"init_temperature=0\.001 must be at least 1 / max_logit_scale",
        ),
    ],
)
def test_fields_that_contradict_one_another(fields, message):
    with pytest.raises(UsageError, match=message):
        method_of(**fields)
