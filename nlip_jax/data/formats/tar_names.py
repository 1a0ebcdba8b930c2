"""One pass over one tar: the names of its samples, and the uids that DataComp's tools know."""

from nlip_jax.data.formats.tar_captions import MAX_BYTES, field_values
from nlip_jax.data.formats.tar_members import BLOCK, Window, split_name, tar_members
from nlip_jax.data.formats.tar_scan import IMAGE_EXTENSIONS
from nlip_jax.data.source import SampleName
from nlip_jax.data.storage import File

_UID = ["uid"]  # field of KEY.json: 32 hexadecimal digits


def sample_names(file: File) -> dict[int, SampleName]:
    """The name of every sample with an image, by the block that the image begins at.

    The headers are read from front to back, which for a whole tar is many times quicker than
    looking for one at a time. A uid is empty where the sample has no KEY.json that tells one.

    Args:
      file: an open tar.

    Raises:
      OSError: it cannot be read.
    """
    window = Window(file)
    images: dict[int, str] = {}
    uids: dict[str, str] = {}
    for member in tar_members(file, window):
        if member.problem:
            continue
        key, extension = split_name(member.name)
        if extension in IMAGE_EXTENSIONS:
            images[member.offset // BLOCK] = key
        elif extension == "json" and member.size <= MAX_BYTES and key not in uids:
            (uid,) = field_values(window.read(member.offset, member.size), _UID)
            if isinstance(uid, str):
                uids[key] = uid
    return {
        block: SampleName(key=_readable(key), uid=_readable(uids.get(key, "")))
        for block, key in images.items()
    }


def _readable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
