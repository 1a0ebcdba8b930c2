"""The captions that people wrote, by image."""

import numpy as np

from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import Source, image_ids
from nlip_jax.errors import RunError


def read_references(source: Source) -> list[list[str]]:
    """All captions of every image, `[num_images]` lists; empty for images without any.

    Raises:
      RunError: one cannot be read: what is measured against the others is another number.
    """
    references: list[list[str]] = [[] for _ in range(source.num_images)]
    for example_id, image_id in enumerate(image_ids(source, np.arange(len(source))).tolist()):
        try:
            references[image_id].append(source.caption(example_id))
        except ReadError as error:
            raise RunError(
                f"the caption of example {example_id}, image {source.place(image_id).key!r}, cannot"
                f" be read: {error}; repair the file, or leave the image out of the set"
            ) from error
    return references
