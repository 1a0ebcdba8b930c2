import jax
import jax.numpy as jnp
import numpy as np
import pytest
from four_parts import (
    CONCEPTS,
    HINTS,
    IMAGE,
    INPUTS,
    KEYS,
    LENGTH,
    NOISED,
    TOKENS,
    VOCAB,
    four_part,
    outputs_of,
)

from nlip_jax.errors import UsageError


@pytest.fixture(scope="module")
def params(random_params):
    return random_params(four_part(), IMAGE, TOKENS)


@pytest.fixture(scope="module")
def run(params):
    compiled = jax.jit(lambda params, inputs: outputs_of(four_part(), params, inputs))

    def of(params=params, **inputs):
        return compiled(params, INPUTS | inputs)

    return of


@pytest.fixture(scope="module")
def gradient():
    """Of a weighted sum of some outputs."""

    @jax.jit
    @jax.grad
    def weighted(params, inputs, weights):
        outputs = outputs_of(four_part(), params, inputs)
        return sum(weight * jnp.sum(jnp.sin(outputs[name])) for name, weight in weights.items())

    def of(params, weights, **inputs):
        return weighted(params, INPUTS | inputs, weights)

    return of


@pytest.fixture(scope="module")
def outputs(run):
    return run()


def test_shapes_and_dtypes(outputs):
    assert {name: (value.shape, str(value.dtype)) for name, value in outputs.items()} == {
        "image_embed": ((3, 6), "float32"),
        "image_tokens": ((3, 5, 6), "float32"),
        "image_memory": ((3, 5, 8), "float32"),
        "visible": ((3, 4), "int32"),
        "text_embed": ((3, 6), "float32"),
        "text_tokens": ((3, LENGTH, 6), "float32"),
        "text_mask": ((3, LENGTH), "bool"),
        "hidden": ((3, LENGTH - 1, 12), "float32"),
        "patches": ((3, 9, 48), "float32"),
    }
    np.testing.assert_allclose(jnp.linalg.norm(outputs["text_embed"], axis=-1), 1, rtol=1e-5)
    last = outputs["text_tokens"][np.arange(3), [4, 5, 1]]
    np.testing.assert_allclose(last, outputs["text_embed"], atol=1e-6)


def changed(new, old, name):
    """Which rows are not the same, to the bit."""
    return [bool(row.any()) for row in np.asarray(new[name] != old[name])]


def test_nothing_of_image_hints_or_noised_text_is_in_the_text_feature(run, outputs):
    other = run(image=-IMAGE, noised=NOISED[:, ::-1], hints=HINTS[:, ::-1] + 1, keys=KEYS[::-1])
    np.testing.assert_array_equal(other["text_embed"], outputs["text_embed"])
    np.testing.assert_array_equal(other["text_tokens"], outputs["text_tokens"])
    assert all(changed(other, outputs, "image_embed"))


@pytest.mark.parametrize("name", ["image", "noised", "hints"])
def test_the_captioner_sees_image_noised_text_and_hints(run, outputs, name):
    other = run(**{name: INPUTS[name][::-1]})  # rows 0 and 2 are exchanged
    assert changed(other, outputs, "hidden") == [True, False, True]


def test_the_captioner_sees_the_words_before_only(run, outputs):
    other = run(tokens=TOKENS.at[1, 3].set(17))
    difference = np.abs(other["hidden"] - outputs["hidden"]).max(axis=-1)
    assert (difference[1, :3] == 0).all()
    assert (difference[1, 3:] > 1e-4).all()
    # The contrastive feature is causal in the decoder, but the encoder looks both ways.
    assert (np.abs(other["text_tokens"] - outputs["text_tokens"]).max(axis=-1)[1] > 1e-5).all()


def test_concepts_reach_the_text_feature_where_that_is_asked_for(params, outputs):
    model = four_part(concepts_in_itc=True)
    encode = jax.jit(lambda hints: model.apply(params, TOKENS, None, hints, method="encode_text"))
    with_hints = encode(HINTS)
    assert changed(with_hints, outputs, "text_embed") == [True, True, True]
    np.testing.assert_allclose(with_hints["text_embed"][1], outputs["text_embed"][1], atol=1e-6)
    assert np.abs(with_hints["text_embed"][0] - outputs["text_embed"][0]).max() > 1e-3


def test_content_and_amount_of_padding_never_matter(params, run, outputs):
    table = params["params"]["text"]["embedding"]["embedding"]
    spoilt = jax.tree.map(lambda leaf: leaf, params)
    spoilt["params"]["text"]["embedding"]["embedding"] = table.at[0].set(100.0)
    other = run(spoilt)

    model = four_part()

    @jax.jit
    def cut(tokens, noised, memory):
        text = model.apply(params, tokens, method="encode_text")
        hidden = model.apply(params, memory, noised, None, tokens, method="caption_hidden")
        return {"text_embed": text["text_embed"], "hidden": hidden}

    # Nothing but padding is cut off, and a row of concepts that has none.
    tokens = TOKENS.at[1].set(TOKENS[0])
    full = run(tokens=tokens, hints=jnp.zeros_like(HINTS))
    short = cut(tokens[:, :5], NOISED[:, :4], full["image_memory"])
    np.testing.assert_allclose(other["text_embed"], outputs["text_embed"], atol=1e-6)
    np.testing.assert_allclose(short["text_embed"], full["text_embed"], atol=1e-6)
    own = np.asarray(TOKENS != 0)[:, :-1]
    np.testing.assert_allclose(other["hidden"][own], outputs["hidden"][own], atol=1e-6)
    own = np.asarray(tokens != 0)[:, :4]
    np.testing.assert_allclose(short["hidden"][own], full["hidden"][:, :4][own], atol=2e-6)


def test_rows_of_padding_alone_are_finite_in_value_and_gradient(params, run, gradient):
    empty = {name: jnp.zeros_like(INPUTS[name]) for name in ("tokens", "noised", "hints")}
    outputs = run(**empty)
    slopes = gradient(params, {"text_embed": 1.0, "hidden": 1.0, "patches": 1.0}, **empty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((outputs, slopes)))


def test_what_the_captioner_learns_leaves_the_contrastive_space_alone(params, gradient):
    slopes = gradient(params, {"text_embed": 0.0, "hidden": 1.0, "patches": 0.0})
    alone = {"image_projection", "text_projection", "log_scale", "image_decoder"}
    for name, leaf in flat(slopes["params"]).items():
        assert (np.abs(leaf).max() == 0) == (name.split("/")[0] in alone), name


def flat(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(part.key for part in path): leaf for path, leaf in leaves}


def test_names_of_parameters_fit_the_rules_of_meshes(params):
    names = set(flat(params["params"]))
    for part in ("attention", "cross_attention"):
        for leaf in ("query/kernel", "key/bias", "value/kernel", "out/kernel"):
            assert f"decoder/decoder/block_0/{part}/{leaf}" in names
    assert {"decoder/decoder/block_0/mlp/wide/kernel", "text/embedding/embedding"} <= names


def test_parts_that_are_off_have_no_parameters(params):
    def names(**fields):
        model = four_part(**fields)
        return set(flat(jax.eval_shape(model.init, jax.random.key(0), IMAGE, TOKENS)["params"]))

    whole = set(flat(params["params"]))
    assert names() == whole

    def below(*starts):
        return {name for name in whole if name.startswith(starts)}

    assert whole - names(captions=False) == below("memory_", "text/concepts/")
    assert whole - names(image_decoder=False) == below("image_decoder/")
    assert whole - names(concept_length=0) == below("text/concepts/")
    assert names(captions=False, concepts_in_itc=True) >= {"text/concepts/position"}


def test_a_model_starts_and_evaluates_whole_images(params):
    model = four_part()
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), IMAGE, TOKENS))
    assert shapes[0]["image_tokens"].shape == (3, 10, 6)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes[1])} == {jnp.dtype("float32")}
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(shapes[1]))

    @jax.jit
    def both(params):
        masked = model.apply(params, IMAGE, None, method="encode_masked_image")
        whole = model.apply(params, IMAGE, method="encode_image")
        unmasked = four_part(mask_ratio=0.0, image_decoder=False)
        return masked, whole, unmasked.apply(params, IMAGE, KEYS, method="encode_masked_image")

    masked, whole, unmasked = both(params)
    for name, value in whole.items():
        np.testing.assert_array_equal(masked[name], value)
        np.testing.assert_array_equal(unmasked[name], value)
    np.testing.assert_array_equal(unmasked["visible"], np.tile(np.arange(9), (3, 1)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_ratio": 1.0}, r"mask_ratio=1.0 must lie in \[0, 1\)"),
        ({"mask_ratio": 0.0}, "hides none of 9 patches"),
        ({"concepts_in_itc": True, "concept_length": 0}, "concepts_in_itc=True needs"),
        ({"embed_dim": 0}, "FourPart: embed_dim=0"),
        ({"words": {"norm": "mid"}}, "norm='mid' is not one of pre, post"),
        ({"words": {"activation": "relu"}}, "activation='relu' is not one of gelu_tanh, gelu"),
        ({"words": {"epsilon": 0.0}}, "epsilon=0.0 must be above 0"),
    ],
)
def test_wrong_fields_are_named_on_construction(fields, message):
    with pytest.raises(UsageError, match=message):
        four_part(**fields)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("decoder", {"width": 8}, "decoder's width=8 is not the text encoder's width=12"),
        ("decoder", {"context_length": 5}, "context_length=5 is less than"),
        ("image_decoder", {"patch_size": 6}, "patch_size=6 is not the image encoder's"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(part, fields, message):
    model = four_part()
    with pytest.raises(UsageError, match=message):
        model.clone(**{part: getattr(model, part).clone(**fields)})


def test_what_a_model_was_built_without_is_refused():
    model = four_part(captions=False, image_decoder=False)
    memory = jnp.zeros((3, 5, 8))
    calls = {
        "captions=False": ("caption_hidden", memory, NOISED, HINTS, TOKENS),
        "image_decoder=None": ("reconstruct", memory, jnp.zeros((3, 4), jnp.int32)),
    }
    for message, (method, *inputs) in calls.items():
        with pytest.raises(UsageError, match=message):
            model.apply({"params": {"log_scale": 0.0}}, *inputs, method=method)


def test_rows_that_are_too_long_are_refused():
    model = four_part()
    with pytest.raises(UsageError, match=f"concept_length={CONCEPTS}"):
        model.text.init(jax.random.key(0), TOKENS, jnp.ones((3, CONCEPTS + 1), jnp.int32))
    with pytest.raises(UsageError, match=f"rows of 7 tokens do not fit context_length={LENGTH}"):
        model.text.init(jax.random.key(0), jnp.ones((3, 7), jnp.int32))
    assert model.text.vocab_size == VOCAB
