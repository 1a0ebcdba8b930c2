"""Weights of BART in the text encoder and the decoder, against BART itself; what is refused."""

import dataclasses
import functools
import json
import sys
import types

import bart_twin
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import tiny
from bart_twin import PAD, SIZES, Bart, as_generation, as_model, draw_weights, write_folder
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import base, nlip_vitb16_yfcc26m, nlip_vitb32_yfcc26m
from nlip_jax import build
from nlip_jax.errors import UsageError
from nlip_jax.interop.bart import to_params
from nlip_jax.placement import Placement
from nlip_jax.train.state import StateFactory

WEIGHTS = draw_weights()
TOKENIZER = types.SimpleNamespace(
    id_offset=1,
    vocab_size=SIZES["vocab_size"] + 1,
    special_ids={"pad": 0, "bos": 1, "unused": 2, "eos": 3},
)
# Rows as ours; and BART's for the same, which are smaller by one and have its own padding.
TOKENS = np.array([[1, 6, 7, 8, 3, 0], [1, 9, 20, 11, 12, 3], [1, 3, 0, 0, 0, 0]], np.int32)
IDS = np.where(TOKENS == 0, PAD, TOKENS - 1)
REAL = TOKENS != 0
GENERATOR = np.random.default_rng(1)


def config(folder="", **fields):
    made = base.get_config()
    made.nlip.update({"model": "four_part", "bart": str(folder)})
    made.data.image_size = tiny.SIZE
    made.tokenizer.context_length = TOKENS.shape[1]
    made.concepts.update({"top_k": 2, "max_tokens": 2})
    made.loss.similarity = "token_max"
    made.model.embed_dim = 6
    made.model.image.update({"patch_size": 4, "width": 8, "depth": 1, "heads": 2})
    made.model.image_decoder.update({"width": 4, "depth": 1, "heads": 2})
    text = {"width": 8, "depth": 2, "heads": 2, "mlp_dim": 12, "causal": False}
    made.model.text.update(text)
    made.model.decoder.update({"depth": 1, "heads": 4, "mlp_dim": 20})
    made.update_from_flattened_dict(fields)
    return made


def model_of(made):
    return build.make_model(made, vocab_size=TOKENIZER.vocab_size)


@functools.cache
def shapes(scan=True):
    model = model_of(config("folder", **{"model.scan": scan}))
    images = np.zeros((1, tiny.SIZE, tiny.SIZE, 3), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images, TOKENS[:1])["params"]


def read(made, tokenizer=TOKENIZER):
    params = shapes(made.model.scan)
    return build.read_bart(made, tokenizer=tokenizer, params=params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bart"), as_model(WEIGHTS))


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("save", "scan"), [(as_model, False), (as_generation, True)], ids=["layers", "scan"]
)
def test_encoder_and_decoder_give_the_numbers_of_bart(tmp_path, save, scan):
    made = config(write_folder(tmp_path, save(WEIGHTS)), **{"model.scan": scan})
    model, given = model_of(made), read(made)
    drawn = {
        name: GENERATOR.normal(0, 0.3, leaf.shape).astype(np.float32)
        for name, leaf in flatten_dict(shapes(scan), sep="/").items()
    }
    kept = {name for name in drawn if name.split("/")[0] in ("text", "decoder")} - set(given)
    assert kept == {"text/concepts/position", "text/concepts/type"}
    leaves = drawn | given
    seen = GENERATOR.normal(size=(3, 2, 8)).astype(np.float32)

    @jax.jit
    def ours(params):
        def hidden(model, tokens):
            memory = model.text(tokens)
            return model.decoder(
                model.text.embed(tokens), tokens != 0, memory["tokens"], memory["mask"]
            )

        variables = {"params": params}
        return {
            "hidden": model.apply(variables, TOKENS, method=hidden),
            "table": model.apply(variables, method="output_table"),
            "feature": model.apply(variables, TOKENS, method="encode_text")["text_tokens"],
            "caption": model.apply(variables, seen, TOKENS, None, TOKENS, method="caption_hidden"),
        }

    found = {k: np.asarray(v) for k, v in ours(unflatten_dict(leaves, sep="/")).items()}
    bart = Bart(WEIGHTS)
    encoded = bart.encode(IDS)
    hidden = bart.decode(IDS, encoded, IDS != PAD)
    np.testing.assert_allclose(found["hidden"][REAL], hidden[REAL], atol=1e-5)
    # The table has BART's rows one further down, and its row of padding at 0, too.
    np.testing.assert_array_equal(found["table"][[0, *range(1, 21)]][1:], WEIGHTS["shared.weight"])
    np.testing.assert_array_equal(found["table"][0], WEIGHTS["shared.weight"][PAD])
    logits = found["hidden"] @ found["table"].T
    np.testing.assert_allclose(logits[REAL][:, 1:], bart.logits(hidden)[REAL], atol=1e-5)

    feature = hidden @ leaves["text_projection/kernel"].astype(np.float64)
    feature /= np.linalg.norm(feature, axis=-1, keepdims=True)
    np.testing.assert_allclose(found["feature"][REAL], feature[REAL], atol=1e-5)
    kinds = leaves["memory_type"]
    image = seen @ leaves["memory_projection/kernel"] + leaves["memory_projection/bias"] + kinds[0]
    memory = np.concatenate([image, encoded + kinds[1]], axis=1)
    mask = np.concatenate([np.ones((3, 2), bool), REAL], axis=1)
    caption = bart.decode(IDS[:, :-1], memory, mask)
    np.testing.assert_allclose(found["caption"][REAL[:, :-1]], caption[REAL[:, :-1]], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_sixteen_bits_become_float32(tmp_path, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    small = {name: weight.astype(dtype) for name, weight in WEIGHTS.items()}
    given = read(config(write_folder(tmp_path, small)))
    assert {str(value.dtype) for value in given.values()} == {"float32"}
    np.testing.assert_array_equal(
        given["text/embedding/embedding"][1:], small["shared.weight"].astype(np.float32)
    )


# --- the start of a run ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constants(tiny.Regression):
    """Parameters of a model's shapes, each of its own number: compiles at once."""

    shapes: object

    def init_model(self, rng, batch):
        del rng, batch
        leaves, tree = jax.tree.flatten(self.shapes)
        drawn = [jnp.full(leaf.shape, i, leaf.dtype) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(tree, drawn), {}


def test_a_state_begins_with_given_values_on_a_mesh(folder):
    made = config(folder)
    mesh = tiny.mesh_of(8, fsdp=2, tensor=2)
    factory = StateFactory(
        method=Constants(shapes=shapes()),
        tx=optax.adam(1e-3),
        placement=Placement(mesh=mesh, rules=tuple(made.mesh.rules), fsdp_min_bytes=256),
        batch=tiny.abstract_batch(8),
        seed=0,
        ema=True,
    )
    given = read(made)
    state, fresh = factory.create(given), factory.create()
    found, drawn = (flatten_dict(s.params, sep="/") for s in (state, fresh))
    for name, leaf in flatten_dict(factory.abstract().params, sep="/").items():
        expected = given[name] if name in given else drawn[name]
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
        assert found[name].sharding == leaf.sharding
    table = found["text/embedding/embedding"]
    assert table.addressable_shards[0].data.size < table.size
    jax.tree.map(np.testing.assert_array_equal, state.ema_params, state.params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, fresh.opt_state)

    with pytest.raises(ValueError, match="no/such"):
        factory.create({"no/such": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="memory_type"):
        factory.create({"memory_type": np.zeros((2, 9), np.float32)})


# --- what is refused ------------------------------------------------------------------------------


def without(name):
    return {key: weight for key, weight in WEIGHTS.items() if key != name}


def changed(name, value):
    return as_model(WEIGHTS) | {name: np.asarray(value, np.float32)}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            without("decoder.layers.0.encoder_attn.q_proj.bias") | {"classifier.bias": np.ones(3)},
            r"missing: decoder\.layers\.0\.encoder_attn\.q_proj\.bias; not used: classifier\.bias$",
        ),
        (without("shared.weight"), r"missing: shared\.weight$"),
        (without("encoder.embed_positions.weight"), r"missing: encoder\.embed_positions\.weight$"),
        (
            WEIGHTS | {"encoder.layers.2.fc1.bias": np.ones(3)},
            r"not used: encoder\.layers\.2\.fc1\.bias$",
        ),
        (
            changed("encoder.layers.1.fc1.weight", np.ones((8, 13))),
            r"of another shape: encoder\.layers\.1\.fc1\.weight \(8x13, .*8x12\)$",
        ),
        (
            changed("encoder.layers.1.fc1.weight", np.ones((8, 12))),
            r"of another shape: encoder\.layers\.1\.fc1\.weight \(8x12",
        ),
        (
            changed("decoder.embed_positions.weight", np.ones((7, 8))),
            r"of another shape: decoder\.embed_positions\.weight \(7x8",
        ),
        (
            {**WEIGHTS, "shared.weight": np.ones((21, 8))},
            r"of another shape: shared\.weight \(21x8",
        ),
        (
            changed("decoder.embed_tokens.weight", np.ones((20, 8))),
            r"decoder\.embed_tokens\.weight of these .* differs from shared\.weight",
        ),
        (changed("final_logits_bias", np.ones((1, 20))), "final_logits_bias .*not all zeros"),
        (WEIGHTS | {"model.shared.weight": np.ones(3)}, "both with and without"),
    ],
    ids=[
        *("names", "table", "positions", "layer", "shape", "turned", "few positions"),
        *("more words", "untied", "bias", "prefix"),
    ],
)
def test_weights_that_are_not_those(weights, message):
    with pytest.raises(UsageError, match=message):
        to_params(weights, params=shapes(), id_offset=1, pad=PAD)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.text.width": 12}, r"d_model=8 and config\.model\.text\.width=12: .*equal"),
        (
            {"model.decoder.depth": 2, "model.decoder.mlp_dim": 0},
            r"decoder_layers=1 and .*depth=2, decoder_ffn_dim=20 and .*decoder\.mlp_dim=32: ",
        ),
        ({"model.text.heads": 4}, r"encoder_attention_heads=2 and config\.model\.text\.heads=4"),
        ({"tokenizer.context_length": 11}, "context_length=11: .*max_position_embeddings=10"),
    ],
    ids=["width", "decoder", "heads", "length"],
)
def test_sizes_that_differ(folder, fields, message):
    with pytest.raises(UsageError, match=message):
        read(config(folder, **fields))


@pytest.mark.parametrize(
    "full_size", [nlip_vitb16_yfcc26m, nlip_vitb32_yfcc26m], ids=["b16", "b32"]
)
def test_full_size_models_have_the_sizes_of_bart_base(tmp_path, full_size):
    sizes = {"d_model": 768, "vocab_size": 50_265, "max_position_embeddings": 1024}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 6, f"{side}_attention_heads": 12, f"{side}_ffn_dim": 3072}
    (tmp_path / "config.json").write_text(json.dumps(bart_twin.CONFIG | sizes))
    made = full_size.get_config()
    made.nlip.bart = str(tmp_path)
    tokenizer = types.SimpleNamespace(**(vars(TOKENIZER) | {"vocab_size": 50_266}))
    with pytest.raises(UsageError, match=r"model\.safetensors cannot be read"):  # and no earlier
        build.read_bart(made, tokenizer=tokenizer, params={})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 22}, r"vocab_size=20 and the tokenizer 21: .*name='bart'"),
        (
            {"special_ids": {"bos": 2, "eos": 3}},
            "bos_token_id=0 and the tokenizer 1: .*'sentencepiece'",
        ),
        (
            {"id_offset": 0, "vocab_size": 20, "special_ids": {"bos": 0, "eos": 2}},
            "pad_token_id=1 and the tokenizer 0",
        ),
    ],
    ids=["size", "start", "padding"],
)
def test_a_tokenizer_with_other_pieces(folder, fields, message):
    tokenizer = types.SimpleNamespace(**(vars(TOKENIZER) | fields))
    with pytest.raises(UsageError, match=message):
        read(config(folder), tokenizer)


def test_folders_of_something_else(tmp_path, monkeypatch):
    made = config(tmp_path)

    def refused(message):
        with pytest.raises(UsageError, match=message):
            read(made)

    refused(r"config\.nlip\.bart=.*cannot read config\.json")
    for content, message in {
        "{": "no JSON",
        "[]": "no JSON object",
        "{}": "model_type=None and must have 'bart'",
        json.dumps(bart_twin.CONFIG | {"scale_embedding": True}): "scale_embedding=True .*False",
        json.dumps(bart_twin.CONFIG | {"d_model": "8"}): "lacks d_model, or",
        json.dumps(bart_twin.CONFIG | {"pad_token_id": 20}): "pad_token_id=20, which is none",
    }.items():
        (tmp_path / "config.json").write_text(content)
        refused(message)
    (tmp_path / "config.json").write_text(json.dumps(bart_twin.CONFIG))
    refused(r"model\.safetensors cannot be read")
    (tmp_path / "pytorch_model.bin").touch()
    refused("a pickle, which is never read")
    (tmp_path / "model.safetensors").write_bytes(b"no safetensors")
    refused(r"model\.safetensors cannot be read as safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    refused(r"pip install 'nlip_jax\[interop\]'")


def test_only_a_model_of_four_parts_begins_so():
    with pytest.raises(UsageError, match=r"config\.nlip\.bart='x'.*nlip\.model='four_part'"):
        model_of(config("x", **{"nlip.model": "dual_encoder", "model.text.causal": True}))
    clip = config("x", method="clip", **{"model.text.causal": True})
    assert not build.starts_from_bart(clip)  # the block nlip is not read
    model_of(clip)
    plain = model_of(config())
    assert (plain.text.norm, plain.decoder.norm) == ("pre", "pre")
