"""Exact search against matrices of scores: ranks, best answers, ties, gaps, on several meshes."""

import jax
import numpy as np
import pytest
from fakes import normal
from tiny import mesh_of

from nlip_jax.evaluators import search as searches
from nlip_jax.evaluators.search import ImagesToTexts, TextsToImages, cosine, search
from nlip_jax.losses.similarity import token_max
from nlip_jax.methods.similarities import DOT, TOKEN_MAX


def ranks_by_hand(scores, right):
    """Wrong candidates that do not score below the best right one, in float64."""
    found = []
    for row, ids in zip(np.asarray(scores, np.float64), right, strict=True):
        wanted = {int(j) for j in ids if j >= 0}
        known = [row[j] for j in wanted if not np.isnan(row[j])]
        wrong = [row[j] for j in range(len(row)) if j not in wanted]
        if not wanted:
            found.append(len(row))
        elif not known:
            found.append(len(wrong))
        else:
            found.append(sum(score >= max(known) for score in wrong))
    return found


def of_numbers(scores, **options):
    """Searches where query i scores candidate j by the number at [i, j]."""

    def look_up(queries, candidates):
        return queries["row"] @ candidates["one_hot"].T

    scores = np.asarray(scores, np.float32)
    return search(
        {"row": scores},
        {"one_hot": np.eye(scores.shape[1], dtype=np.float32)},
        score=look_up,
        mesh=mesh_of(1),
        **options,
    )


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize(("queries", "candidates"), [(1, 1), (5, 12), (37, 64), (64, 3)])
def test_is_what_the_whole_matrix_says(queries, candidates, devices):
    image, text = normal(queries, 8), normal(candidates, 8, seed=1)
    scores = image.astype(np.float64) @ text.T
    right = np.random.default_rng(2).integers(-1, candidates, (queries, 3)).astype(np.int32)
    found = search(
        {"x": image}, {"x": text}, score=cosine, mesh=mesh_of(devices), right=right, top=4
    )
    # No two scores of a query are so near that rounding could order them anew.
    assert np.diff(np.sort(scores, axis=1), append=9).min() > 1e-6
    assert found.rank.tolist() == ranks_by_hand(scores, [set(row) for row in right])
    best = np.argsort(-scores, axis=1)[:, :4]
    np.testing.assert_array_equal(found.best, best)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, best, 1), atol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_every_mesh_finds_the_same_bits(devices):
    image, text = normal(333, 48), normal(777, 48, seed=1)
    right = np.random.default_rng(2).integers(0, 777, (333, 2)).astype(np.int32)

    def run(mesh):
        return search({"x": image}, {"x": text}, score=cosine, mesh=mesh, right=right, top=7)

    one, other = run(mesh_of(1)), run(mesh_of(devices))
    assert one.rank.tobytes() == other.rank.tobytes()
    assert one.best.tobytes() == other.best.tobytes()
    assert one.scores.tobytes() == other.scores.tobytes()


@pytest.mark.parametrize("queries", [1, 3])
def test_many_blocks_and_tiles_make_the_whole(queries, monkeypatch):
    monkeypatch.setattr(searches, "_MAX_QUERIES", 4)
    monkeypatch.setattr(searches, "_MAX_TOKEN_SCORES", 64)
    image, text = normal(9 * queries, 3, 8), normal(11, 5, 8, seed=1)
    mask = np.arange(5)[None] < np.arange(11)[:, None] % 5 + 1
    images, texts = {"image_tokens": image}, {"text_tokens": text, "text_mask": mask}
    whole = token_max(image, text, column_mask=mask)
    for sides, score, expected in (
        ((images, texts), ImagesToTexts(TOKEN_MAX), whole.per_row),
        ((texts, images), TextsToImages(TOKEN_MAX), whole.per_column.T),
    ):
        found = search(*sides, score=score, mesh=mesh_of(3), top=100)
        best = np.argsort(-np.asarray(expected), axis=1, kind="stable")
        np.testing.assert_array_equal(found.best, best)
        np.testing.assert_allclose(
            found.scores, np.take_along_axis(np.asarray(expected), best, 1), rtol=1e-5, atol=1e-6
        )


def test_blocks_stay_small_and_know_no_mesh():
    def tokens(rows, count):
        return {"tokens": np.empty((rows, count, 8), np.int8)}

    block, tile = searches._block_sizes({"x": np.empty((10**6, 1))}, {"x": np.empty((10**6, 1))})
    assert (block, tile) == (16, 10**6)
    block, tile = searches._block_sizes(tokens(2000, 197), tokens(2000, 77))
    assert block * 197 * tile * 77 <= searches._MAX_TOKEN_SCORES
    assert searches._block_sizes({"x": np.empty((5, 1))}, {"x": np.empty((7, 1))}) == (8, 7)


def test_a_tie_comes_first_and_no_number_is_no_score():
    scores = [[3, 2, 1], [3, 2, 1], [1, 1, 0], [1, 1, 0]]
    right = [[0, -1], [1, 2], [0, -1], [0, 1]]
    assert of_numbers(scores, right=np.array(right)).rank.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("value", [0.5, 0.0, np.nan])
def test_features_that_say_nothing_earn_nothing(value):
    same = np.full((6, 4), value, np.float32)
    found = search(
        {"x": same}, {"x": same}, score=cosine, mesh=mesh_of(1), right=np.arange(6)[:, None], top=2
    )
    assert found.rank.tolist() == [5] * 6
    if np.isnan(value):
        assert (found.best == -1).all() and np.isnan(found.scores).all()
    else:
        assert found.best.tolist() == [[0, 1]] * 6  # the lower number first


def test_one_broken_candidate_spoils_nothing_else():
    candidates = normal(5, 8)
    candidates[2] = np.nan
    found = search(
        {"x": normal(5, 8)},
        {"x": candidates},
        score=cosine,
        mesh=mesh_of(1),
        right=np.arange(5)[:, None],
        top=5,
    )
    assert found.rank.tolist() == [0, 0, 4, 0, 0]
    assert (found.best[:, :4] != 2).all() and (found.best[:, 4] == -1).all()


def test_a_query_without_a_right_answer_comes_last():
    assert of_numbers(np.ones((1, 4)), right=np.array([[-1]])).rank.tolist() == [4]


def test_no_rank_is_found_unless_asked_for():
    assert of_numbers(np.ones((2, 4)), top=1).rank is None


def test_a_query_may_be_kept_out_of_its_own_answers():
    x = normal(6, 8)
    found = search(
        {"x": x}, {"x": x}, score=cosine, mesh=mesh_of(2), excluded=np.arange(6), top=1
    )
    scores = x @ x.T - 10 * np.eye(6)
    np.testing.assert_array_equal(found.best[:, 0], scores.argmax(1))


@pytest.mark.parametrize("average", [1, 2, 3])
def test_rows_in_turn_are_one_candidate(average):
    queries, rows = normal(5, 8), normal(4 * average, 8, seed=1)
    scores = (queries @ rows.T).reshape(5, 4, average).mean(-1)
    right = np.array([0, 1, 2, 3, 0])[:, None]
    found = search(
        {"x": queries},
        {"x": rows},
        score=cosine,
        mesh=mesh_of(2),
        right=right,
        top=2,
        average=average,
    )
    assert found.rank.tolist() == ranks_by_hand(scores, right)
    np.testing.assert_array_equal(found.best, np.argsort(-scores, axis=1)[:, :2])


def test_a_second_search_compiles_nothing():
    traced = []

    def counted(queries, candidates):
        traced.append(queries["x"].shape)
        return cosine(queries, candidates)

    for seed in (0, 1):
        search({"x": normal(70, 8, seed=seed)}, {"x": normal(9, 8)}, score=counted, mesh=mesh_of(2))
    assert len(traced) == 1


def test_whole_scores_stay_inside_of_a_block():
    """The compiled program holds one block of scores a device, not queries x candidates."""
    mesh = mesh_of(1)
    run = searches._compile(cosine, mesh, tile=4096, num_rows=4096, average=1, top=1)
    block = {"x": jax.ShapeDtypeStruct((64, 8), np.float32)}
    candidates = {"x": jax.ShapeDtypeStruct((4096, 8), np.float32)}
    ids = jax.ShapeDtypeStruct((64, 1), np.int32)
    lowered = run.lower(block, candidates, ids, jax.ShapeDtypeStruct((64,), np.int32))
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 8 * 64 * 4096 * 4


def test_both_directions_of_pooled_embeddings():
    images, texts = {"image_embed": normal(6, 4)}, {"text_embed": normal(9, 4, seed=1)}
    scores = images["image_embed"] @ texts["text_embed"].T
    there = search(images, texts, score=ImagesToTexts(DOT), mesh=mesh_of(1), top=1)
    back = search(texts, images, score=TextsToImages(DOT), mesh=mesh_of(1), top=1)
    np.testing.assert_array_equal(there.best[:, 0], scores.argmax(1))
    np.testing.assert_array_equal(back.best[:, 0], scores.argmax(0))
