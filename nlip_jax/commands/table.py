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
        "pretrain, evaluate and report; run it again to go on with a stopped run",
        {
            **_WORKDIR,
            "profile": "FIRST..LAST: steps to make an XLA trace of, in the workdir",
        },
    ),
    "index": Command(
        "scan shards once, so that any example can be read at random; again after adding some",
        _WORKDIR,
    ),
    "prepare": Command(
        "copy the data into ArrayRecord shards, filtered by ALIGN's rules; again to go on",
        {
            **_WORKDIR,
            "output": "folder for the shards",
            "examples_per_shard": "about so many (10000)",
            "num_shards": "instead of that: how many shards",
            "max_side": "shrink images with a longer side, in pixels, to JPEGs of quality 90",
            "rules": "align, or NAME=LIMIT or NAME=off, with commas between them: min_side, "
            "max_aspect, max_texts, max_images, min_words, max_words, top_tokens, "
            "min_token_count, language (package.module:function); default: none",
            "workers": "processes (one for each core); 0: this one",
        },
    ),
    "tokenizer": Command(
        "train or open the vocabulary of a run, and show what it makes of the captions", _WORKDIR
    ),
    "doctor": Command(
        "read a sample of the data as training would, and say what was found",
        {
            **_WORKDIR,
            "sample": "examples to read (512)",
            "rate": "examples a second that the devices take; default: as the run in the workdir",
            "json": "also write the numbers to this file",
        },
    ),
    "replay": Command(
        "repeat a step of a run, such as a loss spike, and show what was in its batch",
        {
            "workdir": "folder of the run, which is only read; the run may be going on",
            "step": "which one, as in metrics.jsonl and spikes.jsonl",
            "top": "pairs to show, those with the highest loss first (10)",
            "page": "also write an HTML page with their images to this file",
            "json": "also write the numbers to this file",
        },
        takes_config=False,
    ),
    "benchmark": Command(
        "measure on this machine; prints a table",
        {"json": "also write the numbers to this file"},
        choices=("step", "model", "loss", "pod", "mixture", "data"),
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
