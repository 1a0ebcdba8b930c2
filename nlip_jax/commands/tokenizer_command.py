"""`tokenizer`: train or open the vocabulary of a run, and show what it makes of the captions."""

import numpy as np

from nlip_jax import build
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.table import COMMANDS
from nlip_jax.commands.workdir import find_workdir, make_workdir
from nlip_jax.config import parse_command_line
from nlip_jax.data.text.statistics import TextStatistics, measure, sample_captions
from nlip_jax.data.text.tokenizer import Tokenizer

_SAMPLE = 10_000  # captions looked at


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    flags = COMMANDS["tokenizer"].flags
    config, values = parse_command_line(argv, command="tokenizer", extra_flags=flags)
    workdir = find_workdir(values["workdir"], argv)
    check_numbers(config)
    make_workdir(workdir)
    source = build.open_training_source(config, workdir)
    tokenizer = build.open_tokenizer(config, source=source, workdir=workdir)
    captions = list(sample_captions(source, _SAMPLE))
    place = config.tokenizer.model or workdir / "tokenizer.model"
    print(f"{place}: {config.tokenizer.name}, fingerprint {tokenizer.fingerprint}")
    print("\n".join(f"  {line}" for line in describe(tokenizer, captions)))
    return 0


def describe(tokenizer: Tokenizer, captions: list[str]) -> list[str]:
    """What a user wants to know before a long run, a line each.

    Args:
      tokenizer: of the run.
      captions: a sample of them.
    """
    special = ", ".join(f"[{name}] {number}" for name, number in tokenizer.special_ids.items())
    lines = [f"{tokenizer.vocab_size:,} ids: {special}"]
    if tokenizer.id_offset:
        lines += [f"ids are those of the published vocabulary + {tokenizer.id_offset}"]
    if captions:
        row = tokenizer.encode(captions[0])
        lines += [f"{captions[0]!r} -> {row[row > 0].tolist()} -> {tokenizer.decode(row)!r}"]
        lines += _counts(measure(tokenizer, captions), tokenizer.context_length)
    return lines


def _counts(found: TextStatistics, context_length: int) -> list[str]:
    count, lengths = len(found.lengths), found.lengths
    middle, high, most = np.percentile(lengths, [50, 95, 100], method="higher")
    return [
        f"{count:,} captions: {lengths.mean():.1f} tokens with [bos] and [eos] on average, "
        f"median {middle}, 95 % have at most {high}, longest {most}",
        f"cut at config.tokenizer.context_length={context_length}: {found.num_cut:,} captions "
        f"({found.num_cut / count:.2%})",
        f"unknown: {found.unknown_share:.2%} of the pieces",
    ]
