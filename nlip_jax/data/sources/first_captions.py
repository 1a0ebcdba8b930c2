"""A source with the first caption of each image alone."""

import numpy as np

from nlip_jax.data.source import Source, SourceView, image_ids


class FirstCaptions(SourceView):
    """A source whose examples are its images with their first captions.

    Args:
      source: any source.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        owners = image_ids(source, np.arange(len(source)))
        self.images, self._examples = np.unique(owners, return_index=True)

    def __len__(self) -> int:
        return len(self._examples)

    def image_id(self, example_id: int) -> int:
        """The image of an example."""
        return int(self.images[example_id])

    def image_ids(self, example_ids: np.ndarray) -> np.ndarray:
        """The images of many examples, `[n]` int64."""
        return self.images[example_ids]

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The first caption of the image."""
        return self.source.caption(int(self._examples[example_id]), epoch)
