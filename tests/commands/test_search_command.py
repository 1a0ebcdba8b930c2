"""`search`: what it finds, what it keeps, and that the run's own files stay as they are."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from nlip_jax.data.synthetic import ClassScenes
from nlip_jax.evaluators.base import Towers

COUNT = 7


@pytest.fixture(scope="module")
def shared_runs():
    return {}


@pytest.fixture
def run(shared_runs, command, tiny, tmp_path_factory):
    """A finished run, made once."""
    if not shared_runs:
        workdir = tmp_path_factory.mktemp("runs") / "tiny"
        code, _, err = command(
            "train",
            *tiny,
            f"--workdir={workdir}",
            "--config.total=6 steps",
            "--config.method=clip",
            "--config.report.enabled=False",
        )
        assert code == 0, err
        shared_runs["run"] = workdir
    return shared_runs["run"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in a folder and below it, one of them broken, beside other files."""
    folder = tmp_path_factory.mktemp("pictures")
    scenes = ClassScenes(images_per_class=1, split="validation", seed=0, image_size=32)
    (folder / "deep" / "er").mkdir(parents=True)
    for i in range(COUNT - 1):
        place = folder / ("deep/er" if i % 2 else ".")
        Image.fromarray(scenes.picture(i)).save(place / f"scene{i}.png")
    (folder / "deep" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def lines_of(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if re.match(r" +\d+  ", line)]


def test_a_text_finds_images_and_the_second_query_embeds_none(run, folder, command, monkeypatch):
    search = ("search", f"--workdir={run}", f"--over={folder}", "--text=a red square")
    code, out, err = command(*search)
    assert code == 0, err
    assert f"{COUNT} images of {folder}, 1 of them unreadable" in err and "now kept in" in err
    rows = lines_of(out)
    assert len(rows) == COUNT - 1  # the broken one has no score
    assert [row[0] for row in rows] == [str(i) for i in range(1, COUNT)]
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row[2] for row in rows} == {
        f"{'deep/er/' * (i % 2)}scene{i}.png" for i in range(COUNT - 1)
    }

    def embed_images(self, source):
        raise AssertionError("features were kept")

    monkeypatch.setattr(Towers, "embed_images", embed_images)
    code, again, err = command(*search)
    assert code == 0 and "reused from" in err and again == out
    code, out, _ = command(*search, "--top=2")
    assert lines_of(out) == rows[:2]


def test_what_was_kept_is_not_taken_for_other_images_or_torn_files(run, folder, command, tmp_path):
    pictures, cache = tmp_path / "pictures", tmp_path / "cache"
    shutil.copytree(folder, pictures)
    search = ("search", f"--workdir={run}", "--text=a", f"--over={pictures}", f"--cache={cache}")
    code, first, err = command(*search)
    assert code == 0 and "now kept in" in err
    (kept,) = cache.glob("*/image_embed.npy")
    kept.write_bytes(kept.read_bytes()[:100])
    code, out, err = command(*search)
    assert code == 0 and "now kept in" in err and out == first
    (pictures / "scene0.png").unlink()
    code, out, err = command(*search)
    assert code == 0 and "now kept in" in err and "scene0.png" not in out
    assert not list(cache.glob("*.tmp"))


def test_an_image_finds_itself_and_a_text_moves_it(run, folder, command, tmp_path):
    query = folder / "scene2.png"
    search = ("search", f"--workdir={run}", f"--over={folder}", f"--image={query}")
    code, out, err = command(*search)
    assert code == 0, err
    assert lines_of(out)[0][1:3] == ["1.0000", "scene2.png"]

    page, file = tmp_path / "page.html", tmp_path / "found.json"
    both = ("--text=<b>blue</b>", "--text_weight=-0.5", f"--page={page}", f"--json={file}")
    code, out, err = command(*search, *both, "--top=3")
    assert code == 0, err
    found = json.loads(file.read_text())
    assert found["query"] == {
        "text": "<b>blue</b>",
        "image": str(query),
        "weights": {"image": 1.0, "text": -0.5},
    }
    assert [row["file"] for row in found["images"]] == [row[2] for row in lines_of(out)]
    html = page.read_text()
    assert html.count("<img") == 1 + 3 and "&lt;b&gt;blue" in html and "weight -0.5" in html
    assert "<script" not in html and str(page) in out


@pytest.mark.parametrize(
    ("over", "count", "words"),
    [("retrieval/scenes", 30, "validation/"), ("zero_shot/scenes", 40, "in class_scenes")],
)
def test_evaluation_sets(run, command, over, count, words):
    code, out, err = command("search", f"--workdir={run}", f"--over={over}", "--text=a circle")
    assert code == 0, err
    assert f"images of {over}, 0 of them" in err and len(lines_of(out)) == 24
    assert words in out and len(lines_of(out)[0]) > 4  # captions, or names of classes


def test_training_data_and_those_of_another_config(run, command, tmp_path):
    code, out, err = command("search", f"--workdir={run}", "--over=data", "--text=a", "--top=1")
    assert code == 0 and "100 images of the training data of tiny" in err
    assert "train/" in out
    other = tmp_path / "other.py"
    other.write_text(
        "from configs import quickstart\n"
        "def get_config():\n"
        "    c = quickstart.get_config()\n"
        "    c.data.synthetic.num_examples = 50\n"
        "    scenes = c.evaluators.retrieval.scenes.copy_and_resolve_references()\n"
        "    scenes.synthetic.num_examples = 20\n"
        "    c.evaluators.retrieval.mine = scenes\n"
        "    return c\n"
    )
    search = ("search", f"--workdir={run}", f"--config={other}", "--text=a", "--top=1")
    code, _, err = command(*search)
    assert code == 0 and f"50 images of the data of {other}" in err
    code, _, err = command(*search, "--over=retrieval/mine")
    assert code == 0 and "20 images of retrieval/mine" in err


def test_the_run_stays_as_it_is(run, folder, command, tmp_path):
    def contents():
        files = [p for p in run.rglob("*") if p.is_file() and "search" not in p.parts]
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

    before = contents()
    cache = tmp_path / "cache"
    code, _, _ = command(
        "search", f"--workdir={run}", f"--over={folder}", "--text=a", f"--cache={cache}"
    )
    assert code == 0 and contents() == before and list(cache.glob("*/image_embed.npy"))


TEXT = "--text=a"


@pytest.mark.parametrize(
    "case",
    [
        (("--over={folder}",), "nothing to search with"),
        ((TEXT,), "--over=... is missing"),
        ((TEXT, "--over={empty}"), "no images in this folder"),
        ((TEXT, "--over=nowhere"), "no such folder, and no such set"),
        (("--image=gone.jpg", "--over={folder}"), "--image=gone.jpg cannot be used"),
        (("--image={folder}/deep/broken.jpg", "--over={folder}"), "broken.jpg cannot be used"),
        ((TEXT, "--over={folder}", "--text_weight=2"), "give both --text and --image"),
        (
            (TEXT, "--image={folder}/scene0.png", "--text_weight=0", "--image_weight=0"),
            "must not be 0",
        ),
        ((TEXT, "--image={folder}/scene0.png", "--text_weight=x"), "must be a number"),
        ((TEXT, "--over={folder}", "--top=0"), "1 or more"),
        ((TEXT, "--over={folder}", "--step=5"), "choose latest or one of 4, 6"),
        ((TEXT, "--over={folder}", "--page=nowhere/page.html"), "no such folder"),
        ((TEXT, "--over={folder}", "--config.model.embed_dim=9"), "model.embed_dim"),
        ((TEXT, "--over={folder}", "--cache={folder}/notes.txt"), "is a file"),
    ],
)
def test_wrong_input(run, folder, command, tmp_path, case):
    flags, words = case
    places = {"folder": folder, "empty": tmp_path}
    code, _, err = command("search", f"--workdir={run}", *(f.format(**places) for f in flags))
    assert code == 2 and words in err, err
    assert len([line for line in err.splitlines() if line.startswith("nlip_jax search:")]) == 1


def test_a_folder_of_which_nothing_can_be_read(run, command, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    code, _, err = command("search", f"--workdir={run}", f"--over={tmp_path}", TEXT)
    assert code == 1 and "could not be read" in err
    assert not list((run / "search").glob("*.tmp"))


def test_what_a_killed_search_left_goes_later(run, folder, command, tmp_path):
    """Not at once: another host may be writing it."""
    search = ("search", f"--workdir={run}", "--text=x", f"--over={folder}", f"--cache={tmp_path}")
    young, old = (tmp_path / f"0123456789abcdef.{i}.tmp" for i in (1, 2))
    for left in (young, old):
        left.mkdir()
        (left / "image_embed.npy").write_bytes(b"half of")
    for path in (old / "image_embed.npy", old):
        os.utime(path, (0, 0))
    code, _, err = command(*search)
    assert code == 0, err
    assert young.exists() and not old.exists()


def test_a_cache_that_cannot_be_written(run, folder, command, tmp_path):
    (tmp_path / "file").touch()
    cache = f"--cache={tmp_path / 'file' / 'x'}"
    code, _, err = command("search", f"--workdir={run}", "--text=x", f"--over={folder}", cache)
    assert code == 2 and "cannot be written" in err and "with --cache" in err


def test_no_run_and_no_sum_of_tokens(run, folder, command, tmp_path):
    code, _, err = command("search", TEXT, f"--over={folder}")
    assert code == 2 and "--workdir" in err
    code, _, err = command("search", f"--workdir={tmp_path}", TEXT, f"--over={folder}")
    assert code == 2 and "no folder of a run" in err

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["loss"]["similarity"] = "token_max"
    (copy / "config.json").write_text(json.dumps(config))
    image = f"--image={folder / 'scene0.png'}"
    code, _, err = command("search", f"--workdir={copy}", TEXT, image, f"--over={folder}")
    assert code == 2 and "have no sum" in err


def test_token_wise_models_search_with_one_part(run, folder, command, tmp_path):
    """Parameters are the same whichever similarity they are used with."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["loss"]["similarity"] = "token_max"
    (copy / "config.json").write_text(json.dumps(config))
    search = ("search", f"--workdir={copy}", f"--over={folder}", "--top=3")
    code, out, err = command(*search, "--text=a red square")
    assert code == 0 and len(lines_of(out)) == 3, err
    code, out, err = command(*search, f"--image={folder / 'scene2.png'}")
    assert code == 0 and "reused from" in err, err
    assert lines_of(out)[0][1:3] == ["1.0000", "scene2.png"]
    (kept,) = (copy / "search").glob("*/image_tokens.npy")
    assert np.load(kept).shape[0] == COUNT
