"""What `caption` was asked for, from its command line."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nlip_jax import build
from nlip_jax import config as configs
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.evaluation.request import check_unaltered
from nlip_jax.commands.json_file import check_json_file
from nlip_jax.commands.searching.request import DATA, choose_step
from nlip_jax.commands.table import COMMANDS
from nlip_jax.data.storage import is_remote
from nlip_jax.errors import UsageError

_MAY_CHANGE = ("captions.*", "concepts.top_k")  # of the config of a run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A command line, read.

    Attributes:
      config: of the run, with all that was set but concepts.top_k.
      run: its folder.
      step: of the checkpoint.
      top_k: concepts that the captioner is given of each image; 0: none.
      over: what is captioned: `DATA`, or a folder.
      other: the config whose data are captioned instead of the run's own; None: those.
      other_name: of its file.
      output: folder for what is made.
      page: file for a page, or None.
      json: file for the results, or None.
    """

    config: ConfigDict
    run: Path
    step: int
    top_k: int
    over: str
    other: ConfigDict | None
    other_name: str
    output: Path
    page: Path | None
    json: Path | None

    @property
    def decoding(self) -> dict[str, Any]:
        """How captions are made, by the names of config.captions."""
        fields = self.config.captions.to_dict()
        return {name: value for name, value in fields.items() if name != "evaluation"}


def read_request(argv: list[str]) -> Request:
    """Reads the command line.

    Raises:
      UsageError: flags that do not exist or do not go together, no such run, or one whose model
        makes no captions.
    """
    file, settings = configs.take_flag(argv, "config")
    workdir, _ = configs.take_flag(settings, "workdir")
    if not workdir:
        raise UsageError("--workdir=FOLDER of a run is missing")
    run = Path(workdir).expanduser()
    own = workdirs.read_config(run)
    config, values = configs.parse_settings(
        settings,
        config=own.copy_and_resolve_references(),
        command="caption",
        extra_flags=COMMANDS["caption"].flags,
    )
    if not build.can_caption(own):
        kind = f"nlip.model={own.nlip.model} " if own.method == "nlip" else ""
        raise UsageError(
            f"the model of the run in {run} makes no captions ({kind}method={own.method}): train "
            "one with method=nlip, nlip.model=four_part and nlip.lm_weight above 0"
        )
    check_unaltered(own, config, also=_MAY_CHANGE)
    if config.captions.evaluation != own.captions.evaluation:
        raise UsageError(
            f"config.captions.evaluation={config.captions.evaluation!r} is for evaluators; how "
            "captions are made here says config.captions.decoding"
        )
    top_k = config.concepts.top_k
    if not 0 <= top_k <= own.concepts.top_k:
        raise UsageError(
            f"config.concepts.top_k={top_k}: the model was trained with {own.concepts.top_k} and "
            "has no place for more; choose a number from 0 to that"
        )
    config.concepts.top_k = own.concepts.top_k
    over = values["over"] or DATA
    if file and over != DATA:
        raise UsageError(
            f"--config={file} names data to caption, and --over={over} a folder: give one of them"
        )
    return Request(
        config=config,
        run=run,
        step=choose_step(values["step"] or "latest", run / "checkpoints"),
        top_k=top_k,
        over=over,
        other=configs.read_config(file) if file else None,
        other_name=file,
        output=_folder(values["output"]) if values["output"] else run / "captions",
        page=check_json_file(values["page"], flag="page"),
        json=check_json_file(values["json"]),
    )


def _folder(text: str) -> Path:
    if is_remote(text):
        raise UsageError(f"--output={text}: must be a local folder; copy it from there")
    folder = Path(text).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output={text} is a file; name a folder")
    return folder
