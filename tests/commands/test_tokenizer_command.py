"""The vocabulary of a run, described."""

import re


def test_trained_and_described(command, tiny, tmp_path):
    arguments = [*tiny, f"--workdir={tmp_path}"]
    code, out, err = command("tokenizer", *arguments)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/tokenizer.model: sentencepiece, fingerprint ")
    assert re.match(r"  \d+ ids: \[pad\] 0, \[unk\] 1, \[bos\] 2, \[eos\] 3, \[mask\] 4", lines[1])
    caption, ids, again = re.match(r"  '(.+)' -> \[2, (.+), 3\] -> '(.+)'", lines[2]).groups()
    assert caption.lower() == again and not {"0", "1"} & set(ids.split(", "))
    assert re.match(r"  100 captions: [\d.]+ tokens .* longest \d+", lines[3])
    longest = int(lines[3].rsplit(" ", 1)[1])
    count, share = re.search(r"context_length=28: (\d+) captions \((.+)%\)", lines[4]).groups()
    assert (longest > 28) == (int(count) > 0) and float(share) == int(count)  # of 100
    assert re.fullmatch(r"  unknown: \d\.\d\d% of the pieces", lines[5])
    assert command("tokenizer", *arguments)[1] == out  # the second time it is only opened


def test_a_published_one_is_described(command, tiny, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    code, out, err = command(
        "tokenizer",
        *tiny,
        f"--workdir={tmp_path / 'w'}",
        "--config.tokenizer.name=bert",
        f"--config.tokenizer.model={tmp_path}",
        "--config.tokenizer.context_length=4",
    )
    assert code == 0, err
    assert f"{tmp_path}: bert" in out and "5 ids" in out
    assert "unknown: 100.00% of the pieces" in out
    assert re.search(r"context_length=4: (100|\d\d) captions", out)


def test_a_published_one_that_is_missing(command, tiny, tmp_path):
    code, out, err = command(
        "tokenizer", *tiny, f"--workdir={tmp_path}", "--config.tokenizer.name=clip"
    )
    assert code == 2 and err.count("\n") == 1 and not out
    assert "config.tokenizer.model is empty" in err and "open_clip_torch" in err
