"""Runs that nobody trained: a folder with all that a finished run has of its model, in seconds."""

import json
from pathlib import Path

from conftest import TINY

from nlip_jax.checkpoint import Checkpointer
from nlip_jax.commands.session import Session, open_session
from nlip_jax.config import parse_command_line, to_json

# Beside `TINY`: a model of four parts that is given two concepts.
FOUR_PART = (
    "--config.nlip.model=four_part",
    "--config.model.text.causal=False",
    "--config.model.decoder.depth=1",
    "--config.model.decoder.heads=2",
    "--config.model.image_decoder.width=8",
    "--config.model.image_decoder.depth=1",
    "--config.model.image_decoder.heads=2",
    "--config.concepts.top_k=2",
    "--config.concepts.max_tokens=3",
    "--config.captions.min_length=2",
    "--config.captions.max_length=6",
)
STEP = 4  # of the checkpoint


def open_tiny(workdir: Path, *flags: str) -> Session:
    """A session of a tiny config, in the root of the checkout."""
    config, _ = parse_command_line([*TINY, *flags], command="train")
    return open_session(config, workdir)


def make_run(workdir: Path, *flags: str) -> Session:
    """The folder of a run with one checkpoint, of fresh parameters."""
    run = open_tiny(workdir, *flags)
    write_files(run)
    checkpointer = Checkpointer(workdir / "checkpoints")
    checkpointer.save(STEP, state=run.factory.create(), meta={})
    checkpointer.close()
    return run


def write_files(run: Session) -> None:
    """What lies in the folder of a run that has begun."""
    (run.workdir / "config.json").write_text(to_json(run.config))
    (run.workdir / "data.json").write_text(json.dumps(run.data_description))
