"""`evaluate --compare`: what stands on disk decides, and nothing else."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from nlip_jax.columns import ColumnVersion
from nlip_jax.commands.evaluation import compare
from nlip_jax.commands.evaluation.outcome_file import read_outcomes, write_outcomes
from nlip_jax.errors import UsageError
from nlip_jax.outcome import Outcome, Samples


def hits(share: float, *, n: int = 500) -> np.ndarray:
    return (np.random.default_rng(0).random(n) < share) * 1.0


def evaluation(folder, share: float = 0.6, *, n: int = 500, examples: str = "abc"):
    """The files of an evaluation with one set that is judged and one that is not."""
    folder.mkdir(parents=True)
    values = hits(share, n=n)
    recall = Samples(values=values, groups=np.arange(n) // 5)
    outcomes = {
        "zero_shot/birds": Outcome(
            metrics={"top1": float(values.mean())}, samples={"top1": Samples(values=values)}
        ),
        "retrieval/fish": Outcome(
            metrics={"recall@1": float(values.mean()), "median_rank": 3.0},
            samples={"recall@1": recall},
        ),
    }
    sets = {"zero_shot/birds": "123", "retrieval/fish": examples}
    write_outcomes(folder, outcomes, sets=sets, step=5)
    results = {f"{k}/{m}": v for k, o in outcomes.items() for m, v in o.metrics.items()}
    results |= {"zero_shot/birds/top1_low": 0.1, "zero_shot/birds/top1_high": 0.9, "step": 5}
    results |= {"time/seconds": 3.0, "data/failed_examples": 0, "retrieval/mean": None}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def run_compare(command, tmp_path):
    def run(*arguments):
        return command("evaluate", "--compare", *map(str, arguments))

    return run


def test_the_file_gives_back_what_was_written(tmp_path):
    folder = evaluation(tmp_path / "a")
    samples, sets = read_outcomes(folder)
    assert sets == {"zero_shot/birds": "123", "retrieval/fish": "abc"}
    assert set(samples) == {"zero_shot/birds/top1", "retrieval/fish/recall@1"}
    assert samples["zero_shot/birds/top1"].groups is None
    np.testing.assert_array_equal(samples["zero_shot/birds/top1"].values, hits(0.6))
    np.testing.assert_array_equal(samples["retrieval/fish/recall@1"].groups, np.arange(500) // 5)
    with np.load(folder / "outcomes.npz", allow_pickle=False) as file:  # plain arrays
        assert all(file[name].dtype.kind in "fiU" for name in file.files)


def test_an_evaluation_beside_itself(run_compare, tmp_path):
    a = evaluation(tmp_path / "a")
    code, out, err = run_compare(a, a)
    assert code == 0 and not err
    lines = [line.split() for line in out.splitlines()]
    assert lines[3][0] == "zero_shot/birds/top1" and lines[3][-3:] == ["no", "difference", "shown"]
    assert "p of worse" in out.splitlines()[2]
    assert "2 metrics judged (tolerance 0.01" in out and "0 worse, 0 better" in out
    assert "_low" not in out and "time/" not in out and "not judged" in out


def test_one_that_is_clearly_worse(run_compare, tmp_path):
    a, b = evaluation(tmp_path / "a", 0.7), evaluation(tmp_path / "b", 0.5)
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.html"
    code, out, _ = run_compare(a, b, f"--json={numbers}", f"--page={page}")
    assert code == 3
    (line,) = (line for line in out.splitlines() if line.startswith("zero_shot/birds/top1"))
    assert line.endswith("  worse") and "points" in line and " -" in line
    found = json.loads(numbers.read_text())
    assert found["compare/worse"] == 1 and found["compare/zero_shot/birds/top1/verdict"] == -1
    assert found["compare/zero_shot/birds/top1/high"] < -0.1
    assert found["compare/retrieval/fish/recall@1/p"] < 0.001
    assert "compare/retrieval/fish/median_rank/p" not in found
    text = page.read_text()
    assert "worse" in text and "median_rank" in text and "http-equiv" in text

    code, out, _ = run_compare(b, a)
    assert code == 0 and "0 worse, 2 better" in out
    code, out, _ = run_compare(a, b, "--tolerance=0.3")
    assert code == 0 and "0 worse, 0 better" in out


def test_a_drop_in_the_alignment_of_the_table(run_compare, tmp_path):
    a, b = evaluation(tmp_path / "a", 0.7), evaluation(tmp_path / "b", 0.5)
    lines = run_compare(a, b)[1].splitlines()[2:-1]
    assert len({line.index("%]" if "%]" in line else "]") for line in lines if "]" in line}) == 1


def test_sets_of_other_examples_are_left_out(run_compare, tmp_path):
    a = evaluation(tmp_path / "a", 0.7)
    b = evaluation(tmp_path / "b", 0.5, examples="xyz")
    code, out, err = run_compare(a, b)
    assert code == 3 and "retrieval/fish" not in out
    assert "retrieval/fish: its examples are not the same in both (abc, xyz)" in err


def test_nothing_to_compare(run_compare, tmp_path):
    a, b = evaluation(tmp_path / "a"), evaluation(tmp_path / "b")
    (b / "results.json").write_text('{"linear_probe/x/accuracy": 0.5, "step": 5}')
    code, _, err = run_compare(a, b)
    assert code == 2 and "have no metric of the same examples" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{a}"], "takes two folders, RUN_A RUN_B, not 1"),
        (["{a}", "{a}", "{a}"], "not 3"),
        (["{a}", "{none}"], "none is no folder"),
        (["{a}", "{empty}"], "empty has no outcomes.npz: name the folder of a finished run"),
        (["{a}", "{damaged}"], "outcomes.npz is damaged"),
        (["{a}", "{a}", "--tolerance=small"], "--tolerance=small: must be a number"),
        (["{a}", "{a}", "--tolerance=-1"], "--tolerance=-1: must be 0 or more"),
        (["{a}", "{a}", "--page={none}/p.html"], "--page=.*no such folder"),
        (["{a}", "{a}", "--workdir={a}"], "--workdir does not go together with --compare"),
        (["{a}", "{a}", "--step=all"], "--step does not go together with --compare"),
    ],
)
def test_wrong_input(run_compare, tmp_path, arguments, words):
    places = {name: tmp_path / name for name in ("a", "none", "empty", "damaged")}
    evaluation(places["a"])
    evaluation(places["damaged"])
    (places["damaged"] / "outcomes.npz").write_bytes(b"PK half of a file")
    places["empty"].mkdir()
    code, _, err = run_compare(*(argument.format(**places) for argument in arguments))
    assert code == 2 and len(err.splitlines()) == 1, err
    assert re.search(words, err), err


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "outcomes.npz", sets=np.array([{"a": 1}], object))
    with pytest.raises(UsageError, match="is damaged"):
        read_outcomes(tmp_path)


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ('{"zero_shot/birds/top1": 0.5, "step": 3}', "is of step 5, and results.json of step 3"),
        ('{"zero_shot/birds/top1": 0.5, "st', "results.json is damaged"),
    ],
)
def test_an_evaluation_that_was_cut_short(run_compare, tmp_path, results, words):
    a, b = evaluation(tmp_path / "a"), evaluation(tmp_path / "b")
    (b / "results.json").write_text(results)
    code, _, err = run_compare(a, b)
    assert code == 2 and len(err.splitlines()) == 1 and words in err


def noise_column(folder, values, *, length: int = 200):
    column = ColumnVersion(
        directory=folder / "columns" / "noise_prob" / "0001",
        key="k",
        made_for={"length": length, "fingerprint": "f"},
    )
    column.prepare()
    column.append(0, ids=np.arange(len(values)), values=values.astype(np.float32))
    column.merge(num_examples=len(values), present=lambda start, stop: np.ones(stop - start, bool))


def test_agreement_of_two_estimates_of_noise(run_compare, tmp_path):
    a, b = evaluation(tmp_path / "a"), evaluation(tmp_path / "b")
    values = np.random.default_rng(0).random(200)
    noise_column(a, values)
    assert compare.noise_agreement(a, b) == {}
    noise_column(b, np.where(np.arange(200) < 5, np.nan, values))
    assert compare.noise_agreement(a, b)["same_side_share"] == 1
    code, out, _ = run_compare(a, b)
    assert code == 0 and "noise_prob of A and B" in out
    c = evaluation(tmp_path / "c")
    noise_column(c, values, length=300)  # other data
    assert compare.noise_agreement(a, c) == {}


def test_it_starts_without_jax():
    code = (
        "import sys; from nlip_jax.__main__ import main; main(['evaluate', '--compare']); "
        "assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
