"""The commands and their flags, without importing what they need to run."""

import dataclasses

_WORKDIR = {"workdir": "folder of the run; empty: runs/NAME_OF_CONFIG"}


@dataclasses.dataclass(frozen=True)
class Command:
    """What `--help` says of a command; `commands/NAME_command.py` has its `main(argv)`.

    Attributes:
      summary: one line.
      flags: name -> help, beside those of the config.
      choices: values of a first argument without a name, where the command takes one.
      takes_config: whether it works on a config.
    """

    summary: str
    flags: dict[str, str] = dataclasses.field(default_factory=dict)
    choices: tuple[str, ...] = ()
    takes_config: bool = True


COMMANDS = {
    "train": Command(
        "pretrain, evaluate and report; run it again to go on with a stopped run", _WORKDIR
    ),
    "index": Command("scan tar shards once, so that any example can be read at random", _WORKDIR),
    "tokenizer": Command("train the SentencePiece vocabulary of a run from its captions", _WORKDIR),
    "benchmark": Command(
        "measure on this machine; prints a table",
        {"json": "also write the numbers to this file"},
        choices=("step", "mixture"),
        takes_config=False,
    ),
}


def overview() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: python -m nlip_jax COMMAND --config=FILE[:ARGUMENT] [--config.FIELD=VALUE ...]",
            "",
            *(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()),
            "",
            "python -m nlip_jax COMMAND --help lists every flag and config field",
        ]
    )
