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
      usages: what may follow the command's name, where there is more than one way.
      notes: further lines.
    """

    summary: str
    flags: dict[str, str] = dataclasses.field(default_factory=dict)
    choices: tuple[str, ...] = ()
    takes_config: bool = True
    usages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


COMMANDS = {
    "train": Command(
        "pretrain, evaluate and report; run it again to go on with a stopped run",
        {
            **_WORKDIR,
            "profile": "FIRST..LAST: steps to make an XLA trace of, in the workdir",
        },
    ),
    "sweep": Command(
        "train all arms of an experiment with several seeds, and compare them in a table",
        {
            "workdir": "folder of the sweep; empty: runs/NAME_OF_CONFIG_sweep",
            "arms": "only these, with commas between them",
            "seeds": "these instead of the config file's",
            "table": "no value: train nothing, show the table of what is there",
            "json": "also write the numbers to this file",
        },
        notes=(
            "The config file says in SWEEP which arms, seeds and results there are, and its",
            "get_config takes arm=NAME,seed=N: see configs/scenes.py. Each run is a `train` in",
            "WORKDIR/ARM/SEED and says what it does in WORKDIR/ARM/SEED.log. The same command",
            "again goes on where it was stopped; WORKDIR/sweep.md and sweep.json hold the table.",
        ),
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
            "evaluation": "no value: look at the evaluation sets alone, all of them; reads neither "
            "training data nor a vocabulary",
            "sample": "examples to read (512), or images of each evaluation set (8)",
            "rate": "examples a second that the devices take; default: as the run in the workdir",
            "json": "also write the numbers to this file",
        },
    ),
    "evaluate": Command(
        "measure checkpoints of a run or an imported model, or compare two evaluations",
        {
            "workdir": "folder of the run, which is only read; the run may be going on",
            "step": "latest (default), all, or the number of a checkpoint; steps that were "
            "evaluated are not evaluated again",
            "output": "folder for the results; default: evaluate/ in the workdir",
            "watch": "seconds between two looks (60) for new checkpoints; each that the run has "
            "not removed by then (config.checkpoint.keep) is evaluated, until the run is finished",
            "timeout": "seconds without a new checkpoint after which --watch gives up; default: "
            "never",
            "model": "package.module:function instead of a run; see below",
            "json": "also write the numbers to this file",
            "compare": "judge the second of two folders, of runs or evaluations, beside the first",
            "tolerance": "of --compare: differences up to it count as none, in the units of the "
            "metrics (0.01 is one point of a share)",
            "page": "of --compare: also write an HTML page to this file",
        },
        usages=(
            "--workdir=RUN [--step=latest|all|N] [--config=FILE[:ARGUMENT]] "
            "[--config.FIELD=VALUE ...]",
            "--workdir=RUN --watch[=SECONDS]",
            "--model=package.module:function --config=FILE --output=FOLDER",
            "--compare RUN_A RUN_B [--tolerance=0.01] [--page=FILE] [--json=FILE]",
        ),
        notes=(
            "Of --config only the blocks `evaluators` and `evaluation` are taken; without it the",
            "run's own are. --compare exits with 3 where a metric of RUN_B is worse by more than",
            "the tolerance, with Holm's correction for the number of metrics.",
            "",
            "The function of --model is called with (config, mesh) and returns an object or a",
            "mapping with",
            "  variables       pytree of arrays",
            "  image_features  (variables, images [b, h, w, 3] uint8) -> "
            '{"image_embed": [b, d]}, normalised',
            '  text_features   (variables, tokens [b, l] int32) -> {"text_embed": [b, d]}, '
            "normalised",
            '  similarity      "dot", or "token_max" with features "image_tokens", "text_tokens"',
            '                  and "text_mask"',
            "  tokenizer       object with encode(text) -> [l] int32, of one length for all texts",
            "and, where it has them, pooled_features (as image_features, "
            '-> {"pooled": [b, width]})',
            "and caption (as image_features, -> tokens [b, l] int32, for "
            "tokenizer.decode([l]) -> text).",
            "Images come resized to config.data.image_size, not normalised.",
        ),
    ),
    "search": Command(
        "find the images that are most similar to a text, an image, or both together",
        {
            "workdir": "folder of the run",
            "text": "of the query",
            "image": "image file of the query",
            "image_weight": "of the image beside the text (1)",
            "text_weight": "of the text beside the image (1); below 0 it is taken away",
            "over": "what is searched: a folder of images, KIND/SET of config.evaluators, or data: "
            "the training data",
            "top": "images to find (24)",
            "step": "latest (default), or the number of a checkpoint",
            "cache": "folder for the features of the images, which are computed once; default: "
            "search/ in the workdir",
            "page": "also write an HTML page with the images to this file",
            "json": "also write what was found to this file",
        },
        takes_config=False,
        usages=(
            "--workdir=RUN --text=... --over=FOLDER [--top=24] [--page=FILE] [--json=FILE]",
            "--workdir=RUN --image=FILE --over=KIND/SET",
            "--workdir=RUN --image=FILE --text=... [--image_weight=1] [--text_weight=2] "
            "--over=data",
            "--workdir=RUN --text=... --config=FILE[:ARGUMENT] [--over=data|KIND/SET]",
        ),
        notes=(
            "query = image_weight * image + text_weight * text, both of length 1 (ALIGN's",
            "arithmetic; models that compare token by token take an image or a text, not both).",
            "With --config the data or sets of that file are searched instead of the run's own.",
            "Fields of the run that do not alter training may be set, as --config.mesh.fsdp=2.",
        ),
    ),
    "audit": Command(
        "judge every pair of a data set: how likely it is noise, what its text leaves out, which "
        "captions are nearly the same",
        {
            "run": "folder of a run, which is only read: its newest checkpoint judges the pairs; "
            "default: a small model is trained on the data themselves",
            "step": "of the run: latest (default), or the number of a checkpoint",
            "workdir": "folder for the audit; empty: audits/NAME_OF_CONFIG or audits/NAME_OF_RUN",
            "minutes": "that it may take (10); what was not finished in this time it says, and the "
            "same command again goes on",
            "keep_below": "pairs with a lower noise probability are kept (0.5)",
            "shard_noise": "shards with at most this share of noisy pairs are listed as kept (0.5)",
            "near": "similarity from which captions count as nearly the same (0.7): shared words "
            "and pairs of neighbouring words over all; 1.01: only equal ones do",
            "json": "also write the numbers to this file",
        },
        usages=(
            "--config=FILE[:ARGUMENT] [--minutes=10] [--config.FIELD=VALUE ...]",
            "--run=RUN [--step=N]                 the data that the run was trained on",
            "--run=RUN --config=FILE[:ARGUMENT]   other data",
        ),
        notes=(
            "It writes into its folder audit.html; pairs.parquet, a line for every pair;",
            "columns/noise_prob/VERSION, for config.data.keep_column; kept_shards.txt, the shards",
            "that are good enough as a whole; kept_uids.npy for DataComp's resharder, where the",
            "samples have uids; concepts.txt, quarantine.jsonl, results.json. Captions are",
            "proposed where the model makes some (nlip.model=four_part, as the small one is).",
        ),
    ),
    "caption": Command(
        "make captions of all pairs of a data set, or of the pictures of a folder",
        {
            "workdir": "folder of the run whose model makes them; it is only read",
            "over": "what is captioned: data (default), the training data, or a folder of pictures",
            "step": "latest (default), or the number of a checkpoint",
            "output": "folder for the captions of data; default: captions/ in the workdir",
            "page": "also write an HTML page with pictures and captions to this file",
            "json": "also write a folder's captions, or numbers of those of data, to this file",
        },
        takes_config=False,
        usages=(
            "--workdir=RUN [--output=FOLDER] [--page=FILE] [--json=FILE]",
            "--workdir=RUN --config=FILE[:ARGUMENT] --output=FOLDER",
            "--workdir=RUN --over=FOLDER [--page=FILE] [--json=FILE]",
            "--workdir=RUN ... [--config.captions.decoding=beam ...] [--config.concepts.top_k=3]",
        ),
        notes=(
            "The run needs a model that makes captions: method=nlip, nlip.model=four_part. With",
            "--config the data of that file are captioned instead of the run's own. Killed or",
            "stopped (exit code 75), the same command goes on.",
            "",
            "OUTPUT/captions.parquet has example_id, shard, key, caption, concepts and",
            "synthetic_caption; OUTPUT/columns/synthetic_caption/0001 has the captions as tokens,",
            "for config.nlip.completion.captions of another run with the same vocabulary.",
            "",
            "Fields of the blocks config.captions, which says how captions are made, and",
            "config.concepts.top_k, up to that of the run, may be set, beside those that do not",
            "alter training.",
        ),
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
        choices=(
            *("step", "model", "loss", "pod", "mixture", "data", "evaluation", "audit"),
            *("caption", "masking"),
        ),
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
