"""The command `index`: what it tells of what it found."""

import os

from tars import sample, write_tar


def test_index(command, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in (0, 1, 3):
        members = {}
        for i in range(2):
            members |= sample(f"{number:05d}{i:04d}", [f"caption {i}"], seed=i)
        members |= {"alone.jpg": members[f"{number:05d}0000.jpg"]}
        write_tar(folder / f"{number:05d}.tar", members)
    (folder / "00004.tar").write_bytes(b"")
    argv = (
        "index",
        "--config=configs/quickstart.py",
        "--config.data.source=tar",
        f"--config.data.tar.shards={folder}/*.tar",
        f"--workdir={tmp_path / 'run'}",
    )
    code, out, _ = command(*argv)
    index = tmp_path / "run" / "index" / "data"
    assert code == 0 and f"{index}: 3 shards, fingerprint " in out
    for line in (
        "images 6: images kept",
        "captions 6: captions of them",
        "without_caption 3: images without a caption, or without the field in it",
        f"added: {folder}/00003.tar",
        f"missing number: {folder}/00002.tar",
        f"unreadable: shard {folder}/00004.tar has 0 bytes: fetch it again or leave it out",
        f"left out: {folder}/00000.tar: alone: txt: ",
    ):
        assert f"\n  {line}" in out, out
    assert "removed" not in out and "holes" not in out and "truncated" not in out

    os.unlink(folder / "00001.tar")
    code, out, _ = command(*argv)
    assert code == 0 and ": 2 shards, fingerprint " in out and "added" not in out
    assert "  holes 2: images of 1 shards that are gone\n" in out
    assert f"  removed: {folder}/00001.tar\n" in out

    (folder / "00000.tar").write_bytes(b"x")
    code, _, err = command(*argv)
    assert code == 2 and "00000.tar changed since it was indexed (size" in err

    code, _, err = command("index", "--config=configs/quickstart.py", f"--workdir={tmp_path}/w")
    assert code == 2 and "config.data.source='synthetic'" in err and "nothing to index" in err
    code, _, err = command(*argv, "--config.data.source=tars")
    assert code == 2 and "config.data.source='tars': choose one of synthetic, tar" in err


def test_several_patterns(command, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", sample("k", ["x"]))
    code, out, _ = command(
        "index",
        "--config=configs/quickstart.py",
        "--config.data.source=tar",
        f"--config.data.tar.shards={tmp_path}/a/*.tar::{tmp_path}/b/0.tar",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0 and ": 2 shards, fingerprint " in out


def test_long_lists_are_cut(command, tmp_path):
    for number in range(0, 60, 2):
        write_tar(tmp_path / f"{number:05d}.tar", sample(f"{number}", ["x"]))
    code, out, _ = command(
        "index",
        "--config=configs/quickstart.py",
        "--config.data.source=tar",
        f"--config.data.tar.shards={tmp_path}/*.tar",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0
    assert out.count("  added: ") == out.count("  missing number: ") == 11
    assert "  added: and 20 more\n" in out and "  missing number: and 19 more\n" in out
