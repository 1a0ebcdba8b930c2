"""What a run that completes texts says of them, from its columns alone."""

import dataclasses
import types

import numpy as np
import pytest
from untrained import FOUR_PART, open_tiny

from nlip_jax.commands.completion_results import completion_results
from nlip_jax.commands.run_texts import texts_report
from nlip_jax.commands.train_command import open_columns
from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import TRUTH, SourceView
from nlip_jax.evaluators.objects import score_objects
from nlip_jax.methods.completion import Completion

COUNT = 100
STATE = types.SimpleNamespace(episode=np.int32(2))
NOISE = np.linspace(0, 1, COUNT).astype(np.float32)
NOISE[7] = np.nan  # could not be read
SILENT = (20, 99)  # have no caption in the second version


@pytest.fixture(scope="module")
def run(tmp_path_factory, request):
    """A run with two versions of captions: nonsense, then what the scenes are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        run = open_tiny(
            tmp_path_factory.mktemp("runs"),
            *FOUR_PART,
            "--config.nlip.completion.every=2 steps",
            "--config.data.synthetic.independent=True",
            "--config.data.synthetic.incomplete=0.4",
        )
    assert run.method.refresh_steps == (8, 10)
    nonsense = run.tokenizer.encode_batch(["nothing at all"] * COUNT).astype(np.uint16)
    clean = run.tokenizer.encode_batch([run.source.clean_caption(i) for i in range(COUNT)])
    clean[list(SILENT)] = 0
    numbers = np.arange(2 * COUNT).reshape(COUNT, 2) % len(run.texts.concepts) + 1
    write = {
        ("pair_loss", 1): np.where(np.isnan(NOISE), np.nan, 2 + NOISE),
        ("noise_prob", 1): NOISE,
        ("concepts", 1): numbers.astype(np.int32),
        ("concepts", 2): np.flip(numbers, 1).astype(np.int32) * (NOISE > 0.01)[:, None],
        ("synthetic_caption", 1): nonsense,
        ("synthetic_caption", 2): clean.astype(np.uint16),
    }
    for (name, version), values in write.items():
        run.column(name, version).write_dense(values)
    return run


def with_rule(run, **fields):
    method = dataclasses.replace(run.method, completion=Completion(**fields))
    return dataclasses.replace(run, method=method)


def captioned() -> np.ndarray:
    made = np.isfinite(NOISE)
    made[list(SILENT)] = False
    return made


def test_shares_of_what_is_replaced(run):
    found = completion_results(run, STATE)
    made, known = captioned(), np.isfinite(NOISE)
    assert found["completion/captioned_share"] == pytest.approx(made.sum() / known.sum())
    assert found["completion/replaced_share"] == pytest.approx(NOISE[made].mean(), rel=1e-6)
    found = completion_results(with_rule(run, rule="threshold", threshold=0.75), STATE)
    assert found["completion/replaced_share"] == pytest.approx((NOISE[made] > 0.75).mean())
    assert completion_results(run, types.SimpleNamespace(episode=np.int32(0))) == {}
    assert completion_results(with_rule(run, rule="none"), STATE) == {}


@pytest.mark.parametrize("kind", ["", "mismatched/", "incomplete/"])
def test_objects_that_texts_name(run, kind):
    found = completion_results(run, STATE)
    made = captioned()
    if kind:
        made &= run.source.truth() == TRUTH.index(kind[:-1])
    ids = np.flatnonzero(made).tolist()
    rows, scenes = run.column("synthetic_caption", 2).read(), [run.source.scene(i) for i in ids]
    for whose, captions in {
        "": [run.tokenizer.decode(rows[i]) for i in ids],
        "own/": [run.source.caption(i) for i in ids],
    }.items():
        scores = score_objects(captions, scenes)
        for metric in ("precision", "recall"):
            assert found[f"completion/{whose}{kind}object_{metric}"] == scores[f"objects/{metric}"]
    gain = found[f"completion/{kind}object_recall"] - found[f"completion/own/{kind}object_recall"]
    assert gain > 0  # the captions are what the scenes are
    earlier = completion_results(run, types.SimpleNamespace(episode=np.int32(1)))
    assert earlier[f"completion/{kind}object_recall"] == 0


def test_what_was_done_and_which_texts_were_replaced(run):
    report = texts_report(run, STATE)
    assert [(work.step, tuple(work.works)) for work in report.works] == [
        (8, ("concepts", "estimate", "captions")),
        (10, ("concepts", "captions")),
    ]
    assert report.works[1].columns == {"concepts": 2, "synthetic_caption": 2}
    assert [(v.name, v.step) for v in report.versions] == [("0001", 8), ("0002", 10)]
    made, known = captioned(), np.isfinite(NOISE)
    for version, has in zip(report.versions, (known, made), strict=True):
        assert sum(decile.pairs for decile in version.deciles) == known.sum()
        assert sum(decile.captioned for decile in version.deciles) == has.sum()
        last = version.deciles[-1]
        inside = has & (NOISE >= 0.9)
        assert (last.low, last.high, last.captioned) == (0.9, 1.0, inside.sum())
        assert last.replaced == pytest.approx(NOISE[inside].sum(), rel=1e-5)
    groups = report.versions[1].groups
    assert [pair.example_id for pair in groups["Most noisy"]] == list(range(98, 90, -1))
    assert [pair.example_id for pair in groups["Least noisy"]] == [0, 1, 2, 3, 4, 5, 6, 8]
    assert {pair.truth for pair in groups["Incomplete"]} == {"incomplete"}
    pair = groups["Most noisy"][0]
    words, numbers = run.texts.concepts.words, run.column("concepts", 2).read()[98]
    assert pair.concepts == [words[number - 1] for number in numbers]
    assert groups["Least noisy"][0].concepts == []
    assert pair.own == run.source.caption(98) and pair.truth == TRUTH[run.source.truth()[98]]
    assert pair.noise_prob == pair.chance == NOISE[98]


def test_a_completion_that_ended_is_told_as_it_was(run):
    method = dataclasses.replace(run.method, completion_end=10)
    ended = dataclasses.replace(run, method=method)
    first = types.SimpleNamespace(episode=np.int32(1))
    assert completion_results(ended, STATE) == completion_results(run, first)
    report = texts_report(ended, STATE)
    assert [version.name for version in report.versions] == ["0001"]
    assert report.works[1].works[-1] == "completion ends"
    for episode, shown in ((1, True), (2, False)):
        columns = open_columns(ended, episode)
        assert columns["synthetic_tokens"].rows(np.arange(5)).any() == shown
        assert columns["noise_prob"].values is not None


def test_the_same_examples_over_time(run):
    report = texts_report(run, STATE)
    assert len(report.samples) == 8
    later = run.column("synthetic_caption", 2).read()
    for sample in report.samples:
        texts = dict(sample.captions)
        assert texts["0001"] == "nothing at all"
        assert texts["0002"] == run.tokenizer.decode(later[sample.pair.example_id])
    ids = [sample.pair.example_id for sample in report.samples]
    assert ids[0] == 0 and ids[-1] == 99 and dict(report.samples[-1].captions)["0002"] == ""


def test_pictures_that_cannot_be_read_are_left_out(run):
    class Torn(SourceView):
        def picture(self, image_id):
            if image_id in (0, 98):
                raise ReadError("missing_bytes", "gone")
            return self.source.picture(image_id)

    report = texts_report(dataclasses.replace(run, source=Torn(run.source)), STATE)
    assert report.versions[1].groups["Most noisy"][0].example_id == 97
    assert len(report.samples) == 7


def test_captions_from_elsewhere_are_one_version(run):
    given = {"synthetic_caption": np.array(run.column("synthetic_caption", 2).read())}
    run = dataclasses.replace(run, given_columns=given)
    report = texts_report(run, STATE)
    assert [(v.name, v.step) for v in report.versions] == [("from elsewhere", 8)]
    assert completion_results(run, STATE)["completion/object_recall"] > 0
