"""The zero-shot sets that the papers report, as they lie in one folder.

    from configs import evaluation_sets
    c.evaluators.zero_shot.update(evaluation_sets.nlip_sets("data/sets"))

or of a run that is there, or being trained:

    python -m nlip_jax doctor --config=configs/evaluation_sets.py:data/sets --evaluation
    python -m nlip_jax evaluate --workdir=RUN --config=configs/evaluation_sets.py:data/sets

The argument is FOLDER[,group=nlip|protoclip][,layout=webdataset|image_folder|zip|tfds]
[,templates=clip|filip][,ensemble=embeddings|similarities][,sets=NAME+NAME+...].
EVALUATION_SETS.md, beside this file, says where each set comes from and how it has to lie.
"""

from ml_collections import ConfigDict

from configs import base, evaluators

# The sets that NLIP reports, which are FILIP's (arXiv:2111.07783, table 1), in that order.
NLIP = (
    "cifar10",
    "cifar100",
    "caltech101",
    "cars",
    "flowers102",
    "food101",
    "sun397",
    "dtd",
    "aircraft",
    "pets",
    "eurosat",
    "imagenet",
)

# The sets that ProtoCLIP reports (arXiv:2206.10996).
PROTOCLIP = (
    "imagenet",
    "cifar10",
    "cifar100",
    "stl10",
    "birdsnap",
    "country211",
    "flowers102",
    "gtsrb",
    "ucf101",
    "cars",
)

# Data set and split of those that TensorFlow Datasets has; of UCF101 it has the videos only.
TFDS = {
    "cifar10": ("cifar10", "test"),
    "cifar100": ("cifar100", "test"),
    "caltech101": ("caltech101", "test"),
    "cars": ("cars196", "test"),
    "flowers102": ("oxford_flowers102", "test"),
    "food101": ("food101", "validation"),
    "sun397": ("sun397/standard-part1-120k", "test"),
    "dtd": ("dtd", "test"),
    "pets": ("oxford_iiit_pet", "test"),
    "eurosat": ("eurosat/rgb", "train[80%:]"),  # it has no other split; this is VTAB's test set
    "imagenet": ("imagenet2012", "validation"),
    "stl10": ("stl10", "test"),
}

# Sets whose folders are no names of classes, but are sorted as these are: codes of countries.
_IN_ORDER = ("country211",)


def _webdataset(root: str, name: str) -> tuple[str, ConfigDict, str]:
    return "webdataset", evaluators.webdataset_set(root=f"{root}/{name}"), "names"


def _image_folder(root: str, name: str) -> tuple[str, ConfigDict, str]:
    block = evaluators.image_folder_set(root=f"{root}/{name}/test")
    return "image_folder", block, "order" if name in _IN_ORDER else "names"


def _zip(root: str, name: str) -> tuple[str, ConfigDict, str]:
    block = evaluators.zip_set(path=f"{root}/{name}/test.zip")
    return "zip", block, "order" if name in _IN_ORDER else "names"


def _tfds(root: str, name: str) -> tuple[str, ConfigDict, str]:
    if name not in TFDS:  # aircraft, birdsnap, country211, gtsrb, ucf101
        return _webdataset(root, name)
    data_set, split = TFDS[name]
    return "tfds", evaluators.tfds_set(name=data_set, split=split, data_dir=root), "names"


LAYOUTS = {
    "webdataset": _webdataset,
    "image_folder": _image_folder,
    "zip": _zip,
    "tfds": _tfds,
}


def nlip_sets(root: str, layout: str = "webdataset", **fields: str) -> dict[str, ConfigDict]:
    """The 12 sets of NLIP and FILIP; metrics as in CLIP's paper, which theirs are compared with.

    Args:
      root: folder of all of them.
      layout: one of `LAYOUTS`.
      **fields: of `evaluators.zero_shot`, such as templates="filip", ensemble="similarities".
    """
    return _sets(NLIP, root, layout, fields)


def protoclip_sets(root: str, layout: str = "webdataset", **fields: str) -> dict[str, ConfigDict]:
    """The 10 sets of ProtoCLIP, which reports top-1 of all; arguments as of `nlip_sets`."""
    return _sets(PROTOCLIP, root, layout, {"metric": "top1", **fields})


GROUPS = {"nlip": nlip_sets, "protoclip": protoclip_sets}


def get_config(arg: str | None = None) -> ConfigDict:
    """The defaults, with the sets of a group to evaluate."""
    root, *settings = (arg or "").split(",")
    options = dict(setting.partition("=")[::2] for setting in settings)
    group, chosen = options.pop("group", "nlip"), options.pop("sets", "")
    unknown = set(options) - {"layout", "templates", "ensemble"}
    if not root or unknown or group not in GROUPS:
        raise ValueError(
            "configs/evaluation_sets.py takes FOLDER[,group=nlip|protoclip][,layout=...]"
            f"[,templates=...][,ensemble=...][,sets=NAME+NAME], got {arg!r}"
        )
    sets = GROUPS[group](root, **options)
    names = chosen.split("+") if chosen else list(sets)
    if wrong := [name for name in names if name not in sets]:
        raise ValueError(f"sets={chosen}: {wrong[0]!r} is none of {', '.join(sets)}")
    c = base.get_config()
    c.evaluators.zero_shot.update({name: sets[name] for name in names})
    return c


def _sets(
    names: tuple[str, ...], root: str, layout: str, fields: dict[str, str]
) -> dict[str, ConfigDict]:
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: choose one of {', '.join(LAYOUTS)}")
    specs = {}
    for name in names:
        source, block, match = LAYOUTS[layout](root, name)
        specs[name] = evaluators.zero_shot(source, block, prompts=name, match=match, **fields)
    return specs
