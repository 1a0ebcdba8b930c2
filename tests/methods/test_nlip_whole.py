"""NLIP whole: its three losses, what each may see, and the columns that a refresh leaves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import mesh_of, rows, state_of

from nlip_jax.columns import ColumnVersion
from nlip_jax.data.concepts.vocabulary import ConceptVocabulary
from nlip_jax.losses import targets
from nlip_jax.methods.base import Episode
from nlip_jax.methods.captioner import Captioner
from nlip_jax.methods.completion import Completion
from nlip_jax.methods.nlip_whole import NlipWhole, TextNoise, image_keys
from nlip_jax.methods.retriever import Retriever
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.models.caption_decoder import CaptionDecoder
from nlip_jax.models.decoding.decoding import Decoding
from nlip_jax.models.four_part import FourPart
from nlip_jax.models.mae_decoder import MaeDecoder
from nlip_jax.models.text_encoder import TextEncoder
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.train.accumulation import MicroBatches
from nlip_jax.train.gradients import loss_and_gradients
from nlip_jax.train.map_examples import id_words

B, TOP_K, WORD_TOKENS = 8, 2, 2
KEY = jax.random.key(5)
CONTRASTIVE = ("image_projection", "text_projection", "log_scale")
WORDS = ConceptVocabulary(
    words=("dog", "big cat", "tree"),
    rows=np.array([[4, 0], [5, 6], [7, 0]], np.int32),
    fingerprint="words",
)


@functools.lru_cache
def model_of(*, captions=True, reconstructs=True, token_features=False, concepts_in_itc=False):
    shared = {"width": 8, "depth": 1, "heads": 2, "mlp_dim": 16}
    return FourPart(
        image=VisionTransformer(patch_size=2, image_size=tiny.SIZE, pool="mean", **shared),
        text=TextEncoder(
            vocab_size=tiny.VOCAB,
            context_length=tiny.LENGTH,
            concept_length=TOP_K * WORD_TOKENS if captions else 0,
            **shared,
        ),
        decoder=CaptionDecoder(context_length=tiny.LENGTH, **shared),
        image_decoder=MaeDecoder(patch_size=2, image_size=tiny.SIZE, **shared)
        if reconstructs
        else None,
        embed_dim=8,
        mask_ratio=0.5,
        captions=captions,
        token_features=token_features,
        concepts_in_itc=concepts_in_itc,
    )


def method_of(similarity="dot", **fields):
    lm, ir = fields.get("lm_weight", 1.0), fields.get("ir_weight", 1.0)
    in_itc = fields.get("concepts_in_itc", False)
    model = model_of(
        captions=lm > 0,
        reconstructs=ir > 0,
        token_features=similarity == "token_max",
        concepts_in_itc=in_itc,
    )
    chosen = SIMILARITIES[similarity]
    captioner = Captioner(
        model=model,
        similarity=chosen,
        decoding=Decoding(kind="nucleus", min_length=1, max_length=3),
        bos=2,
        eos=3,
        prompt=(),
        context_length=tiny.LENGTH,
    )
    with_captions = {
        "text_noise": TextNoise(rate=(0.3, 0.5), mean_span=2.0, drop=0.5, mask_id=1),
        "concepts": WORDS,
        "retriever": Retriever(
            word_rows=np.array([[2, 4, 3], [2, 5, 3], [2, 7, 3]], np.int32), top_k=TOP_K
        ),
        "captioner": captioner,
        "evaluation_captioner": dataclasses.replace(
            captioner, decoding=Decoding(kind="beam", beams=2, min_length=1, max_length=3)
        ),
    }
    defaults = {
        "weight": 1.0,
        "form": targets.smoothed,
        "fit": None,
        "posterior": None,
        "completion": Completion(rule="noise_prob"),
        "context_length": tiny.LENGTH,
        **(with_captions if lm > 0 else {}),
    }
    return NlipWhole(model=model, similarity=chosen, **(defaults | fields))


def batch_of(size=B, *, noise_prob=0.0):
    """Real rows with some concepts and captions of others."""
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, len(WORDS.words) + 1, (size, TOP_K))
    return rows(range(size)) | {
        "noise_prob": np.full(size, noise_prob, np.float32),
        "synthetic_tokens": rows(range(50, 50 + size))["tokens"],
        "concept_tokens": WORDS.tokens(numbers - 1),
        "row": np.arange(size, dtype=np.int32),
    }


@functools.lru_cache
def params_of(**fields):
    method = method_of(**fields)
    params, _ = jax.jit(method.init_model)(jax.random.key(0), rows(range(B)))
    # Types and biases start at zero: moved, so that what should not matter could.
    moved = np.random.default_rng(7)
    return jax.tree.map(lambda a: a + 0.05 * moved.normal(size=a.shape).astype(np.float32), params)


def found(method, batch, params, **fields):
    work = jax.jit(
        lambda state, batch: loss_and_gradients(method, state, batch, rng=KEY, **fields)
    )
    return work(state_of(method, params), batch)


def names_of(tree):
    return {name for name, leaf in tree.items() if any(np.any(x) for x in jax.tree.leaves(leaf))}


def features_of(method, batch, params):
    state = state_of(method, params)
    return jax.jit(lambda batch: method.embed(params, state, batch, rng=KEY).features)(batch)


# --- losses ---------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_three():
    method = method_of(itc_weight=0.5, lm_weight=2.0, ir_weight=3.0)
    state, batch = state_of(method, params_of()), batch_of()

    @jax.jit
    def work(state, batch):
        features = method.embed(state.params, state, batch, rng=KEY)
        pairs = method.pair_loss(state.params, features.features, state, batch)
        each = {**features.features, **features.local}
        return pairs, method.example_loss(state.params, each, None, state, batch, rng=KEY)

    pairs, examples = work(state, batch)
    np.testing.assert_allclose(pairs.loss, 0.5 * pairs.metrics["itc_loss"], rtol=1e-6)
    expected = 2 * examples.metrics["lm_loss"] + 3 * examples.metrics["ir_loss"]
    np.testing.assert_allclose(examples.loss, expected, rtol=1e-6)
    assert 2.0 < examples.metrics["lm_loss"] < 5.0  # of 32 words, untrained
    assert 0.5 < examples.metrics["ir_loss"] < 2.5  # of patches of variance 1, untrained


@pytest.mark.parametrize(
    "off, gone",
    [
        ({"lm_weight": 0.0}, {"memory_projection", "memory_type"}),
        ({"ir_weight": 0.0}, {"image_decoder"}),
    ],
    ids=["lm", "ir"],
)
def test_a_loss_without_weight_has_no_parameters_and_no_metric(off, gone):
    method, every = method_of(**off), params_of()
    abstract, _ = jax.eval_shape(method.init_model, jax.random.key(0), rows(range(B)))
    assert set(every) - set(abstract) == gone
    params = {name: every[name] for name in abstract}
    state = state_of(method, params)

    def metrics(batch):
        return loss_and_gradients(method, state, batch, rng=KEY).metrics

    assert f"{next(iter(off))[:2]}_loss" not in jax.eval_shape(metrics, batch_of())


def test_noisy_pairs_teach_the_captioner_less():
    method = method_of(lm_noise_weight=1.0)
    state = state_of(method, params_of())
    local = jax.jit(lambda batch: method.embed(state.params, state, batch, rng=KEY).local)(
        batch_of()
    )
    local.pop("visible")
    method = dataclasses.replace(method, ir_weight=0.0)

    @jax.jit
    def loss(batch):
        return method.example_loss(state.params, local, None, state, batch, rng=KEY).loss

    np.testing.assert_allclose(
        loss(batch_of(noise_prob=0.5)), 0.5 * loss(batch_of()), rtol=1e-5
    )


@pytest.mark.slow
def test_in_micro_batches_it_is_the_same():
    method, params = method_of(), params_of()
    batch = batch_of(16, noise_prob=0.4)
    parts = MicroBatches(count=2, mesh=mesh_of(2))
    ours, whole = found(method, batch, params, micro_batches=parts), found(method, batch, params)
    np.testing.assert_allclose(ours.loss, whole.loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        ours.gradients, whole.gradients,
    )


# --- isolation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["image", "concept_tokens", "text_noise"])
def test_the_contrastive_text_feature_sees_the_text_alone(changed):
    method, params, batch = method_of(), params_of(), batch_of()
    other = dict(batch)
    if changed == "text_noise":
        noise = dataclasses.replace(method.text_noise, drop=0.0, mask_id=9)
        method_2 = dataclasses.replace(method, text_noise=noise)
    else:
        method_2 = method
        other[changed] = np.roll(batch[changed], 1, axis=0)
    ours = features_of(method, batch, params)["text_embed"]
    theirs = features_of(method_2, other, params)["text_embed"]
    np.testing.assert_array_equal(ours, theirs)


def test_with_concepts_in_itc_it_sees_the_concepts():
    fields = {"concepts_in_itc": True}
    method, params, batch = method_of(**fields), params_of(**fields), batch_of()
    other = {**batch, "concept_tokens": np.roll(batch["concept_tokens"], 1, axis=0)}
    ours = features_of(method, batch, params)["text_embed"]
    assert np.abs(ours - features_of(method, other, params)["text_embed"]).max() > 1e-6


def test_captioning_alone_gives_the_contrastive_projections_no_gradient():
    method, every = method_of(itc_weight=0.0, ir_weight=0.0), params_of()
    params = {name: every[name] for name in every if name != "image_decoder"}
    gradients = found(method, batch_of(), params).gradients
    for name in CONTRASTIVE:
        assert not np.any(jax.tree.leaves(gradients[name])[0]), name
    assert {"image", "text", "decoder", "memory_projection"} <= names_of(gradients)


def test_without_a_key_whole_images_are_seen_and_own_texts():
    method, params = method_of(), params_of()
    batch = batch_of(noise_prob=1.0)
    state = state_of(method, params)
    ours = method.embed(params, state, batch, rng=None).features
    variables = {"params": params}
    np.testing.assert_allclose(
        ours["image_embed"],
        method.image_features(variables, batch["image"])["image_embed"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        ours["text_embed"],
        method.text_features(variables, batch["tokens"])["text_embed"],
        rtol=1e-6,
    )


# --- refresh --------------------------------------------------------------------------------------


class Passes:
    """Applies what a refresh asks for to all examples in one batch, and keeps the columns."""

    def __init__(self, method, folder, *, n=B, index=1):
        self.method, self.folder, self.n, self.index, self.asked = method, folder, n, index, []

    def column(self, name):
        return ColumnVersion(directory=self.folder / name / f"{self.index:04d}", key="key")

    def map_examples(self, name, function, given, join=()):
        self.asked.append(name)
        column = self.column(name)
        ids = np.arange(self.n)
        batch = rows(ids) | {"example_id": id_words(ids)}
        for field in join:
            joined = self.method.joined(field)
            values = np.asarray(self.column(joined.column).read())
            batch[field] = (joined.rows or np.asarray)(values).astype(joined.dtype)
        values = np.asarray(jax.jit(function)(given, batch))
        column.prepare()
        column.write_dense(values)
        return values

    @property
    def episode(self):
        return Episode(index=self.index, map_examples=self.map_examples, column=self.column)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory):
    method = method_of(works=(("concepts", "captions"),))
    passes = Passes(method, tmp_path_factory.mktemp("columns"))
    state = state_of(method, params_of())
    method.refresh(state, passes.episode)
    return method, passes, state


def test_a_refresh_leaves_concepts_and_captions(refreshed):
    _, passes, _ = refreshed
    assert passes.asked == ["concepts", "synthetic_caption"]
    numbers = np.asarray(passes.column("concepts").read())
    assert numbers.shape == (B, TOP_K) and numbers.min() >= 1 and numbers.max() <= 3
    assert all(len(set(row)) == TOP_K for row in numbers.tolist())
    captions = np.asarray(passes.column("synthetic_caption").read())
    assert captions.shape == (B, tiny.LENGTH) and captions.dtype == np.uint16
    assert (captions[:, 0] == 2).all() and (captions == 3).any(1).all()


def test_a_finished_column_is_not_made_again(refreshed):
    method, passes, state = refreshed
    before = list(passes.asked)
    method.refresh(state, passes.episode)
    assert passes.asked == before


def test_a_caption_hangs_on_its_example_and_episode_alone(refreshed):
    method, passes, state = refreshed
    variables, ids = {"params": state.params}, np.array([5, 2, 5])
    batch = rows(ids) | {"example_id": id_words(ids)}
    numbers = np.asarray(passes.column("concepts").read())[ids]
    batch["concept_tokens"] = method.concept_rows(numbers)
    make = jax.jit(method.synthetic_captions)
    ours = make((variables, np.int32(1)), batch)
    np.testing.assert_array_equal(ours, passes.column("synthetic_caption").read()[ids])


def test_concepts_are_constants_of_training():
    """Numbers in a column: what found them gets no gradient, being no argument of the loss."""
    method, params = method_of(), params_of()
    retrieval = method.retriever.prepare(method, {"params": params})
    numbers = method.concept_numbers(retrieval, batch_of())
    assert jnp.issubdtype(numbers.dtype, jnp.integer)


def test_evaluation_finds_concepts_for_itself():
    method, params = method_of(), params_of()
    variables = method.prepare_captions({"params": params})
    made = jax.jit(method.caption)(variables, rows(range(3))["image"])
    assert made.shape == (3, tiny.LENGTH) and made.dtype == jnp.int32
    assert (np.asarray(made)[:, 0] == 2).all()


def test_what_is_drawn_for_an_image_hangs_on_its_pixels_alone():
    images = rows(range(6))["image"]
    draws = jax.vmap(jax.random.uniform)
    ours = draws(image_keys(KEY, jnp.asarray(images)))
    assert len(set(ours.tolist())) == 6
    np.testing.assert_array_equal(draws(image_keys(KEY, jnp.asarray(images[3:5]))), ours[3:5])


def test_a_stride_takes_every_so_many_th_pair():
    method = dataclasses.replace(method_of(), lm_stride=4)
    np.testing.assert_array_equal(method._strided(jnp.arange(8)), [0, 4])


def test_a_prompt_is_taken_off_and_a_cut_caption_ended():
    captioner = dataclasses.replace(method_of().captioner, prompt=(9, 8))
    made = jnp.array([[2, 9, 8, 5, 6, 3], [2, 9, 8, 5, 6, 7]])
    np.testing.assert_array_equal(
        captioner._strip(made), [[2, 5, 6, 3, 0, 0], [2, 5, 6, 7, 3, 0]]
    )


def test_of_several_candidates_the_best_match_is_kept():
    method, params = method_of(), params_of()
    captioner = method.captioner
    batch = batch_of()
    rng = np.random.default_rng(3)
    candidates = jnp.asarray(
        np.stack([rows(rng.integers(0, 90, B))["tokens"] for _ in range(3)], axis=1)
    )
    features = method.model.apply(
        {"params": params}, batch["image"] / 127.5 - 1.0, None, method="encode_masked_image"
    )
    best = captioner._best({"params": params}, features, candidates)
    images = method.image_features({"params": params}, batch["image"])["image_embed"]
    for i in range(B):
        texts = method.text_features({"params": params}, candidates[i])["text_embed"]
        np.testing.assert_array_equal(best[i], candidates[i, jnp.argmax(texts @ images[i])])
