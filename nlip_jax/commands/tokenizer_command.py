"""`tokenizer`: train the vocabulary of a run, into its workdir."""

from nlip_jax import build
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.table import COMMANDS
from nlip_jax.commands.workdir import find_workdir
from nlip_jax.config import parse_command_line
from nlip_jax.errors import UsageError


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    flags = COMMANDS["tokenizer"].flags
    config, values = parse_command_line(argv, command="tokenizer", extra_flags=flags)
    workdir = find_workdir(values["workdir"], argv)
    check_numbers(config)
    path = workdir / "tokenizer.model"
    if config.tokenizer.model:
        raise UsageError(
            f"config.tokenizer.model={config.tokenizer.model!r} names a file; leave it empty to "
            "train one"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    source = build.open_training_source(config, workdir)
    tokenizer = build.open_tokenizer(config, source=source, workdir=workdir)
    print(f"{path}: {tokenizer.vocab_size:,} pieces, fingerprint {tokenizer.fingerprint}")
    caption = source.caption(0)
    print(f"  {caption!r} -> {[int(i) for i in tokenizer.encode(caption) if i]}")
    return 0
