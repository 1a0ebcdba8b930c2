"""`tokenizer`: train the vocabulary of a run, into its workdir."""

from pathlib import Path

from nlip_jax import build
from nlip_jax.commands.table import COMMANDS
from nlip_jax.commands.workdir import default_workdir
from nlip_jax.config import parse_command_line
from nlip_jax.errors import UsageError


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    flags = COMMANDS["tokenizer"].flags
    config, values = parse_command_line(argv, command="tokenizer", extra_flags=flags)
    workdir = Path(values["workdir"] or default_workdir(argv))
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
