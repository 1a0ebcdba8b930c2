"""`caption`: columns of a data set, stopped and gone on with, and pictures of a folder."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from untrained import FOUR_PART, STEP, make_run

from nlip_jax import build, phases
from nlip_jax.columns import ColumnVersion
from nlip_jax.commands.session import Session
from nlip_jax.config import parse_command_line
from nlip_jax.data.pipeline import _Batches
from nlip_jax.data.synthetic import ClassScenes
from nlip_jax.errors import UsageError
from nlip_jax.methods.captioner import Captioner
from nlip_jax.train import stop

COUNT = 6  # pictures of the folder
COLUMNS = ("concepts", "synthetic_caption")


@pytest.fixture(scope="module")
def run(tmp_path_factory, request) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        return make_run(tmp_path_factory.mktemp("runs") / "tiny", *FOUR_PART)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in a folder and below it, one of them broken and one with a name that is markup."""
    folder = tmp_path_factory.mktemp("pictures")
    scenes = ClassScenes(images_per_class=1, split="validation", seed=0, image_size=32)
    (folder / "deep").mkdir()
    for i in range(COUNT - 2):
        place = folder / ("deep" if i % 2 else ".")
        Image.fromarray(scenes.picture(i)).save(place / f"scene{i}.png")
    Image.fromarray(scenes.picture(0)).save(folder / "<b>bold.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return folder


@pytest.fixture
def caption(run, command):
    """Runs the command on the run: (exit code, out, err)."""
    return lambda *flags: command("caption", f"--workdir={run.workdir}", *flags)


@pytest.fixture(scope="module")
def shared_outputs():
    return {}


@pytest.fixture
def output(caption, shared_outputs, tmp_path_factory):
    """The captions of the run's own data, made once."""
    if not shared_outputs:
        output = tmp_path_factory.mktemp("outputs") / "captions"
        code, out, err = caption(f"--output={output}")
        assert code == 0, err
        assert str(output / "captions.parquet") in out and "completion.captions=" in out
        shared_outputs["captions"] = output
    return shared_outputs["captions"]


def columns(output) -> dict[str, np.ndarray]:
    folders = {name: output / "columns" / name / "0001" for name in COLUMNS}
    return {
        name: np.array(ColumnVersion(directory=folder, key="").read())
        for name, folder in folders.items()
    }


def test_columns_and_table_say_the_same(run, output):
    found = columns(output)
    rows, concepts = found["synthetic_caption"], found["concepts"]
    assert rows.shape == (100, run.tokenizer.context_length) and concepts.shape == (100, 2)
    words = run.texts.concepts.words
    assert concepts.min() >= 1 and concepts.max() <= len(words)
    lengths = (rows != 0).sum(1) - 2
    assert lengths.min() >= 2 and lengths.max() <= 6
    lines = pq.read_table(output / "captions.parquet").to_pylist()
    assert [line["example_id"] for line in lines] == list(range(100))
    for i in (0, 41, 99):
        place = run.source.place(i)
        assert lines[i] == {
            "example_id": i,
            "shard": place.shard,
            "key": place.key,
            "caption": run.source.caption(i),
            "concepts": [words[number - 1] for number in concepts[i]],
            "synthetic_caption": run.tokenizer.decode(rows[i]),
        }
    numbers = json.loads((output / "results.json").read_text())
    assert numbers["captioned"] == numbers["examples"] == 100
    assert numbers["mean_tokens"] == pytest.approx(lengths.mean())
    assert numbers["distinct_share"] == pytest.approx(len(np.unique(rows, axis=0)) / 100)


def test_another_run_trains_with_them(run, output, tiny):
    folder = output / "columns" / "synthetic_caption" / "0001"
    given = given_by(folder, run, tiny)
    np.testing.assert_array_equal(given, columns(output)["synthetic_caption"])


def given_by(folder, run, tiny):
    setting = f"--config.nlip.completion.captions={folder}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])  # where the config file of `tiny` is
        config, _ = parse_command_line([*tiny, setting], command="train")
    given = build.given_columns(config, source=run.source, tokenizer=run.tokenizer)
    return given["synthetic_caption"]


def test_a_finished_run_is_taken_for_its_last_captions(run, output, tiny, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="this run is not finished"):
        given_by(tmp_path, run, tiny)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UsageError, match="this run has made no captions"):
        given_by(tmp_path, run, tiny)
    made = tmp_path / "columns" / "synthetic_caption"
    shutil.copytree(output / "columns" / "synthetic_caption" / "0001", made / "0003")
    (made / "0001").mkdir()
    (made / "0004").mkdir()  # begun, and not finished
    rows = columns(output)["synthetic_caption"]
    np.testing.assert_array_equal(given_by(tmp_path, run, tiny), rows)


@pytest.mark.parametrize("column", COLUMNS)
def test_stopped_it_goes_on_and_makes_the_same(output, caption, tmp_path, monkeypatch, column):
    """SIGTERM in the middle of a pass; what was finished is not read again."""
    monkeypatch.setattr(stop, "_requested", False)
    enter, loaded = phases.enter, []

    def interrupt(name, **details):
        enter(name, **details)
        if name == "fragment" and details == {"column": column, "index": 2}:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(phases, "enter", interrupt)
        code, _, err = caption(f"--output={tmp_path}")
    assert code == 75 and "run the same command again" in err
    assert not (tmp_path / "captions.parquet").exists()
    kept = sorted((tmp_path / "columns" / column / "0001").glob("fragment-*"))
    assert len(kept) >= 2

    monkeypatch.setattr(stop, "_requested", False)
    read = _Batches.__getitem__
    monkeypatch.setattr(
        _Batches, "__getitem__", lambda self, number: loaded.append(number) or read(self, number)
    )
    code, _, err = caption(f"--output={tmp_path}")
    assert code == 0, err
    assert "going on with" in err
    batches = -(-100 // (8 * 4))  # of 4 rows on 8 devices
    passes = 2 if column == "concepts" else 1
    assert len(loaded) == passes * batches - len(kept)
    for name, values in columns(output).items():
        np.testing.assert_array_equal(values, columns(tmp_path)[name])
    tables = [pq.read_table(place / "captions.parquet") for place in (output, tmp_path)]
    assert tables[0].equals(tables[1])


def test_finished_it_makes_nothing_again(output, caption, monkeypatch, tmp_path):
    def made(self, *args):
        raise AssertionError("these captions were made")

    monkeypatch.setattr(Captioner, "__call__", made)
    page, file = tmp_path / "page.html", tmp_path / "numbers.json"
    code, _, err = caption(f"--output={output}", f"--page={page}", f"--json={file}")
    assert code == 0, err
    assert json.loads(file.read_text()) == json.loads((output / "results.json").read_text())
    html = page.read_text()
    assert html.count("<img") == 48 and "own text: " in html and "concepts: " in html


def test_other_captions_do_not_mix_with_them(output, caption, tmp_path):
    before = (output / "made_of.json").read_bytes()
    code, _, err = caption("--config.captions.top_p=0.5", f"--output={output}")
    assert code == 2 and "captions.top_p=0.9, now it is 0.5" in err
    assert (output / "made_of.json").read_bytes() == before
    (tmp_path / "mine.txt").write_text("of somebody")
    code, _, err = caption(f"--output={tmp_path}")
    assert code == 2 and "not empty and not of captions (it holds mine.txt)" in err


def test_data_of_another_config(caption, tmp_path):
    """Greedily and without concepts: a caption does not depend on the batch or on the others."""
    settings = ("--config.captions.decoding=greedy", "--config.concepts.top_k=0")
    found = []
    for count in (30, 10):
        other = tmp_path / f"other{count}.py"
        other.write_text(
            "from configs import quickstart\n"
            "def get_config():\n"
            "    c = quickstart.get_config()\n"
            "    c.data.synthetic.seed = 5\n"
            f"    c.data.synthetic.num_examples = {count}\n"
            "    return c\n"
        )
        output = tmp_path / str(count)
        code, _, err = caption(f"--config={other}", *settings, f"--output={output}")
        assert code == 0, err
        assert not (output / "columns" / "concepts").exists()
        table = pq.read_table(output / "captions.parquet")
        assert table["concepts"].to_pylist() == [[]] * count
        found.append(table["synthetic_caption"].to_pylist())
    assert found[0][:10] == found[1]


def test_pictures_of_a_folder(run, folder, caption, tmp_path):
    page, file, output = tmp_path / "page.html", tmp_path / "found.json", tmp_path / "output"
    code, out, err = caption(
        f"--over={folder}", f"--output={output}", f"--page={page}", f"--json={file}"
    )
    assert code == 0, err
    found = json.loads(file.read_text())
    assert found["step"] == STEP and len(found["images"]) == COUNT
    images = {image["file"]: image for image in found["images"]}
    assert images["broken.jpg"]["caption"] is None and "(cannot be read)" in out
    words = set(run.texts.concepts.words)
    for name, image in images.items():
        assert name in out
        if image["caption"]:
            assert image["caption"] in out and len(set(image["concepts"]) & words) == 2
    html = page.read_text()
    assert html.count("<img") == COUNT - 1
    assert "<b>bold" not in html and "&lt;b&gt;bold.png" in html
    assert not list(output.glob("*.parquet"))


@pytest.mark.parametrize(
    "case",
    [
        ((), "--workdir=FOLDER of a run is missing"),
        (("--workdir={run}", "--over=nowhere"), "no such folder; name one, or 'data'"),
        (("--workdir={run}", "--over={empty}"), "no images in this folder"),
        (("--workdir={run}", "--step=5"), "choose latest or one of 4"),
        (("--workdir={run}", "--config.model.embed_dim=9"), "captions.* and config.concepts"),
        (("--workdir={run}", "--config.concepts.top_k=3"), "from 0 to that"),
        (("--workdir={run}", "--config.captions.decoding=best"), "greedy"),
        (("--workdir={run}", "--config.captions.evaluation=greedy"), "captions.decoding"),
        (("--workdir={run}", "--config.captions.max_length=99"), "at most"),
        (("--workdir={run}", "--output=gs://bucket/a"), "must be a local folder"),
        (("--workdir={run}", "--page=nowhere/page.html"), "no such folder"),
        (
            ("--workdir={run}", "--config=configs/quickstart.py", "--over={empty}"),
            "give one of them",
        ),
    ],
)
def test_wrong_input(run, command, tmp_path, case):
    flags, words = case
    places = {"run": run.workdir, "empty": tmp_path}
    code, _, err = command("caption", *(flag.format(**places) for flag in flags))
    assert code == 2 and words in err, err
    assert len([line for line in err.splitlines() if line.startswith("nlip_jax caption:")]) == 1
    assert not (run.workdir / "captions" / "made_of.json").exists()


def test_a_model_without_captions_is_refused(run, command, tmp_path):
    config = json.loads((run.workdir / "config.json").read_text())
    config["nlip"]["model"] = "dual_encoder"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "data.json").write_text("{}")
    code, _, err = command("caption", f"--workdir={tmp_path}")
    assert code == 2 and "makes no captions" in err and "nlip.model=four_part" in err
