"""What the page of captions shows, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Captioned:
    """A picture and what was said of it.

    Attributes:
        image: `[h, w, 3]` uint8 RGB; None if it cannot be read.
        caption: of the model; empty for none.
        concepts: that the model was given, the best first.
        own: the caption that was there before; empty for none.
        name: file or number.
    """

    image: np.ndarray | None
    caption: str
    concepts: Sequence[str] = ()
    own: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionReport:
    """Everything on the page of captions.

    Attributes:
        title: of the page.
        description: one line below it.
        items: in the order in which they are shown.
        provenance: what made the captions, in words.
    """

    title: str
    description: str = ""
    items: Sequence[Captioned] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
