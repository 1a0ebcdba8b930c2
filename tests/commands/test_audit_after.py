"""The stages of an audit after embedding, with planted losses."""

import functools
import itertools
import json
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlip_jax import build
from nlip_jax.commands.auditing import after, evidence, show
from nlip_jax.commands.auditing.after import Embedded, Rules, finish
from nlip_jax.commands.auditing.estimate import estimate
from nlip_jax.commands.auditing.kept import UID, KeptUids, Limits, halves_of
from nlip_jax.commands.auditing.missing import MissingConcepts
from nlip_jax.commands.auditing.reading import list_examples
from nlip_jax.commands.auditing.shard_account import ShardAccount, ShardNoise, wilson, worst_first
from nlip_jax.commands.auditing.work import Work
from nlip_jax.config import read_config
from nlip_jax.data import listing as listings
from nlip_jax.data.listing import Listing
from nlip_jax.data.members import Ranges
from nlip_jax.data.source import Place, SampleName, SourceView
from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.errors import Preempted, RunError
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.report import audit_page
from nlip_jax.train import stop

COUNT, PER_SHARD = 300, 60
HOSTILE = "<script>alert('&amp;')</script>"
UNKNOWN = 7  # has no loss
RENDER = audit_page.render


class Sharded(SourceView):
    """Scenes in shards, with uids; one has a hostile caption, the last shard is the worst."""

    def caption(self, example_id, epoch=0):
        return HOSTILE if example_id in (5, 11) else self.source.caption(example_id, epoch)

    def place(self, image_id):
        return Place(f"s/{image_id // PER_SHARD}.tar", f"k{image_id}")

    def shard_names(self, image_ids):
        return [self.place(i).shard for i in image_ids]

    def sample_names(self, image_ids):
        return [
            SampleName(f"k{i}", "" if i == 4 else f"{i * 2**70 + i:x}") for i in image_ids.tolist()
        ]


@pytest.fixture
def source():
    scenes = SyntheticScenes(
        num_examples=COUNT, split="train", seed=0, image_size=8, mismatched=0.3
    )
    return Sharded(scenes)


@pytest.fixture
def losses(source):
    """Of clean pairs about 2 nats, of others about 5; all of the last shard are high."""
    rng = np.random.default_rng(0)
    noisy = source.truth() > 0
    noisy[-PER_SHARD:] = True
    found = (np.where(noisy, 5, 2) + rng.normal(0, 0.4, COUNT)).astype(np.float32)
    found[UNKNOWN] = np.nan
    return found


@pytest.fixture(autouse=True)
def blank_page(monkeypatch):
    """Drawing takes longer than all the rest: only the test of the page does."""
    monkeypatch.setattr(audit_page, "render", lambda report: report.title)


def listed(source, folder, *, members=None, parts=None) -> Listing:
    listing, few = Listing(folder / "listing", len(source)), iter(range(100))
    list_examples(
        listing,
        source,
        members or Ranges(len(source)),
        processes=0,
        should_stop=lambda: parts is not None and next(few) >= parts,
    )
    return listing


def run(source, losses, folder, *, members=None, parts=None, work=None, **more):
    members = members or Ranges(len(source))
    folder.mkdir(exist_ok=True)
    found = Embedded(
        folder=folder,
        source=source,
        members=members,
        listing=listed(source, folder, members=members, parts=parts),
        losses=losses,
        looked_at=len(members),
        made_of=["a test"],
        **more,
    )
    rules = Rules(
        fit=functools.partial(gaussian_mixture.fit, num_bins=512),
        posterior=gaussian_mixture.posterior,
        limits=Limits(keep_below=0.5, shard_noise=0.6),
        near=0.7,
        max_pixels=10_000,
    )
    labels = show.Labels(title="Audit", description="of a test", notes=["not finished: x"])
    return finish(found, rules, work=work or Work(), labels=lambda fitted: labels)


def files(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".html", ".json")
    }


def test_what_is_written(source, losses, tmp_path):
    folder = tmp_path / "audit"
    numbers = np.zeros((COUNT, 2), np.int32)
    numbers[:20] = [1, 2]
    results = run(
        source,
        losses,
        folder,
        missing=MissingConcepts(("unicorn", "a thing"), numbers),
        propose=lambda noise_prob, progress: {1: "a proposal", 2: HOSTILE},
    )
    assert results["noise/auc"] > 0.85  # but for the last shard
    assert results["audit/unreadable_pairs"] == 1 and results["audit/looked_at"] == COUNT - 1
    assert json.loads((folder / "results.json").read_text()) == results

    table = pq.read_table(folder / "pairs.parquet")
    assert table.schema.remove_metadata() == evidence.TABLE and len(table) == COUNT
    assert table["example_id"].to_pylist() == list(range(COUNT))
    assert table["caption"].to_pylist() == [source.caption(i) for i in range(COUNT)]
    assert table["key"][3].as_py() == "k3" and table["shard"][61].as_py() == "s/1.tar"
    assert table["pair_loss"].null_count == 1 and table["noise_prob"][UNKNOWN].as_py() is None
    known = np.delete(np.arange(COUNT), UNKNOWN)
    assert np.allclose(table["pair_loss"].to_numpy()[known], losses[known])
    noise_prob = table["noise_prob"].to_numpy()
    assert noise_prob[losses > 4].min() > 0.9 and noise_prob[losses < 3].max() < 0.1
    groups = table["duplicate_group"].to_pylist()
    assert groups[5] == groups[11] == 5
    assert all(group is None or group <= i for i, group in enumerate(groups))
    missing = table["missing_concepts"].to_pylist()
    assert missing[0] == ["unicorn", "a thing"] and missing[20] is None
    assert table["proposed_caption"].to_pylist()[:4] == [None, "a proposal", HOSTILE, None]

    kept = noise_prob < 0.5
    assert results["audit/kept_pairs"] == kept.sum()
    assert (folder / "kept_shards.txt").read_text().split() == [f"s/{i}.tar" for i in range(4)]
    uids = np.load(folder / "kept_uids.npy")
    expected = sorted((i * 64, i) for i in np.flatnonzero(kept).tolist() if i != 4)
    assert uids.dtype == UID and uids.tolist() == expected
    assert not list(folder.glob("*.tmp"))


def test_this_framework_trains_on_what_is_kept(source, losses, tmp_path, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    results = run(source, losses, tmp_path / "audit")
    config = read_config("configs/quickstart.py")
    config.data.keep_column = str(tmp_path / "audit" / "columns" / "noise_prob" / "0001")
    draw = build.make_draw(config, source=source)
    assert len(draw) == results["audit/kept_pairs"]
    ids = draw.members.take(np.arange(len(draw)))
    assert losses[ids].max() < 4 and UNKNOWN not in ids


def test_the_page_shows_it_and_no_text_becomes_markup(source, losses, tmp_path, monkeypatch):
    monkeypatch.setattr(audit_page, "render", RENDER)
    run(
        source,
        losses,
        tmp_path / "a",
        propose=lambda noise_prob, progress: dict.fromkeys(range(COUNT), HOSTILE),
        missing=MissingConcepts((HOSTILE,), np.ones((COUNT, 1), np.int8)),
    )
    html = (tmp_path / "a" / "audit.html").read_text()
    assert "<script" not in html and "default-src 'none'" in html and "not finished: x" in html
    assert html.count("&lt;script&gt;") >= 50
    for title in ("Noise", "Worst shards", "Nearly identical captions", "What texts leave out"):
        assert f"<h2>{title}</h2>" in html
    assert html.index("s/4.tar") < html.index("s/0.tar") and html.count("10 of 10") == 1
    assert "--config.data.keep_column=" in html and "resharder.py" in html


def test_again_it_writes_the_same_and_other_losses_another_version(source, losses, tmp_path):
    folder = tmp_path / "audit"
    run(source, losses, folder)
    first = files(folder)
    run(source, losses, folder)
    assert files(folder) == first
    losses[UNKNOWN] = 2.0
    run(source, losses, folder)
    assert sorted(p.name for p in (folder / "columns" / "noise_prob").iterdir()) == ["0001", "0002"]
    assert files(folder)["columns/noise_prob/0001/DONE"] == first["columns/noise_prob/0001/DONE"]


@pytest.mark.parametrize("moment", range(4))
def test_stopped_between_stages_it_goes_on(source, losses, tmp_path, monkeypatch, moment):
    run(source, losses, tmp_path / "once")
    asked = iter([*[False] * moment, *[True] * 9])
    with monkeypatch.context() as patch:
        patch.setattr(stop, "requested", lambda: next(asked))
        with pytest.raises(Preempted):
            run(source, losses, tmp_path / "twice")
    assert not (tmp_path / "twice" / "audit.html").exists()
    run(source, losses, tmp_path / "twice")
    assert files(tmp_path / "twice") == files(tmp_path / "once")


def test_what_was_not_read_in_time_is_there_without_its_text(
    source, losses, tmp_path, monkeypatch
):
    monkeypatch.setattr(listings, "PART", 100)
    monkeypatch.setattr(evidence, "PART", 100)
    members = Ranges(COUNT, np.array([[250, 260]]))
    results = run(source, losses, tmp_path / "half", members=members, parts=2)
    table = pq.read_table(tmp_path / "half" / "pairs.parquet")
    assert table["example_id"].to_pylist() == [*range(250), *range(260, COUNT)]
    assert results["audit/pairs"] == COUNT - 10
    read = results["audit/compared_captions"]
    assert 190 <= read <= 200 and table["caption"].null_count == COUNT - 10 - read
    assert table["noise_prob"].null_count == 1 and results["audit/unreadable_captions"] == 0
    run(source, losses, tmp_path / "half", members=members)
    run(source, losses, tmp_path / "whole", members=members)
    assert files(tmp_path / "half") == files(tmp_path / "whole")


def test_too_few_losses(source, losses, tmp_path):
    losses[50:] = np.nan
    with pytest.raises(RunError, match="the losses of 49 pairs are known, and an estimate needs"):
        run(source, losses, tmp_path / "a")


def test_an_estimate_keeps_nan_for_what_is_unknown(source, losses, tmp_path):
    found = estimate(
        losses,
        fit=gaussian_mixture.fit,
        posterior=gaussian_mixture.posterior,
        folder=tmp_path,
        source=source,
        made_of=[],
    )
    assert np.isnan(found.noise_prob).nonzero()[0].tolist() == [UNKNOWN]
    assert json.loads((found.column / "DONE").read_text())["made_for"]["length"] == COUNT


# --- the parts ------------------------------------------------------------------------------------
def table_of(shards, noise_prob, uids=None) -> pa.Table:
    return pa.table(
        {
            "shard": pa.array(shards).dictionary_encode(),
            "noise_prob": pa.array(noise_prob, pa.float32()),
            "uid": pa.array(uids or [""] * len(shards), pa.string()),
        }
    )


def test_shards_are_counted_over_tables():
    account = ShardAccount()
    account.add(table_of(["a", "a", "b", None], [0.9, None, 0.25, 1.0]))
    account.add(table_of(["b", "c"], [0.75, None]))
    a, b, c = account.shards()
    assert (a.shard, a.pairs, a.looked_at, a.noisy, a.share) == ("a", 2, 1, 1, 1.0)
    assert (b.shard, b.pairs, b.looked_at, b.noisy, b.mean) == ("b", 2, 2, 1, 0.5)
    assert (c.looked_at, np.isnan(c.share), np.isnan(c.mean)) == (0, True, True)


def test_a_shard_of_few_pairs_is_not_the_worst_by_chance():
    def shard(name, looked_at, noisy):
        return ShardNoise(shard=name, pairs=99, looked_at=looked_at, noisy=noisy, mean=0.5)

    shards = [shard("few", 2, 2), shard("many", 1000, 700), shard("none", 0, 0)]
    assert [found.shard for found in worst_first(shards)] == ["many", "few"]


@pytest.mark.parametrize("hits, count", list(itertools.product([0, 1, 5, 9], [9, 1000])))
def test_wilson_solves_its_equation(hits, count):
    share = hits / count
    for end in wilson(hits, count):
        assert abs(share - end) == pytest.approx(1.96 * (end * (1 - end) / count) ** 0.5, abs=1e-9)
    assert wilson(0, 0) == (0.0, 1.0)


def test_uids_are_what_the_resharder_searches():
    uids = ["139e4a9b22a614771f06c700a8ebe150", "6e356964a967af455c8016b75d691203", "12", "x", ""]
    kept = KeptUids()
    kept.add(table_of(["a"] * 5, [0.1] * 5, uids), np.ones(5, bool))
    kept.add(table_of(["a"] * 2, [0.1] * 2, [uids[1], "ff"]), np.array([True, False]))
    expected = np.array([(int(u[:-16] or "0", 16), int(u[-16:], 16)) for u in uids[:3]], UID)
    expected.sort()
    found = kept.uids()
    assert found.tolist() == expected.tolist() and kept.without == 2
    key = np.array([divmod(int(uids[1], 16), 2**64)], UID)[0]  # as the resharder makes it
    assert np.searchsorted(found, key, "right") - np.searchsorted(found, key, "left") == 1
    assert halves_of(pa.array([], pa.string())).shape == (0, 2)


def test_missing_concepts():
    words = ("circle", "red circle", "box", "t-shirt", "knife")
    numbers = np.array([[1, 2], [3, 5], [4, 0], [0, 0], [1, 2]], np.int32)
    find = MissingConcepts(words, numbers)
    captions = pa.array(["Two red Circles!", "boxes, knives", "a shirt", "nothing", None])
    found = find(np.arange(5), captions)
    assert found.to_pylist() == [[], [], ["t-shirt"], None, None]
    assert find(np.array([1, 0]), pa.array(["", "circles"])).to_pylist() == [
        ["box", "knife"],
        ["red circle"],
    ]


def test_the_account_names_what_is_left():
    work = Work()
    with work.stage("one") as progress:
        progress.done, progress.finished = "half of it", False
    with work.stage("two"):
        pass
    assert [stage.name for stage in work.unfinished] == ["one"]
    assert after.PAGE == "audit.html"


def test_open_clip_reads_the_list_of_shards(source, losses, tmp_path, monkeypatch):
    wds = pytest.importorskip("webdataset")
    shown = []
    monkeypatch.setattr(audit_page, "render", lambda report: shown.extend(report.artefacts) or "")
    run(source, losses, tmp_path / "a")
    (line,) = [found.usage for found in shown if found.name == "kept_shards.txt"]
    command = line.replace("--train-data", "printf %s").partition(" --train-num-samples ")
    printed = subprocess.run(
        ["bash", "-c", command[0]], cwd=tmp_path / "a", capture_output=True, text=True, check=True
    )
    # What open_clip does with the value of --train-data.
    assert wds.shardlists.expand_urls(printed.stdout) == [f"s/{i}.tar" for i in range(4)]
    assert command[2] == str(4 * PER_SHARD)
