"""Resampling to a square, antialiased as Pillow does it but several times faster.

Shrinking by a factor r, Pillow convolves the image with a cubic kernel stretched by r, evaluated
anew around every pixel of the result. Here the image is convolved with that kernel once, on its
own grid, and the smooth result is interpolated: two passes that OpenCV has vectorised.
"""

import functools
import math

import cv2
import numpy as np

# A process is one worker among many: threads of OpenCV's own would only take cores from the others.
cv2.setNumThreads(0)

_SHARPNESS = -0.5  # the free parameter of the cubic kernel: that of Keys 1981 and of Pillow
_LONGEST_KERNEL = 4  # shrinking by more, an average over areas goes first ...
_AFTER_AVERAGE = 2  # ... and leaves this factor to the kernel


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes a whole image to a square, whatever its aspect ratio.

    Args:
      image: `[h, w, 3]` uint8.
      size: side of the result in pixels.

    Returns:
      `[size, size, 3]` uint8; the image itself where it is that size already.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if max(height, width) > _LONGEST_KERNEL * size:
        height, width = (
            _AFTER_AVERAGE * size if n > _LONGEST_KERNEL * size else n for n in (height, width)
        )
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if max(height, width) > size:
        across, down = (_kernel(max(1.0, n / size)) for n in (width, height))
        image = cv2.sepFilter2D(image, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=4096)
def _kernel(factor: float) -> np.ndarray:
    """Taps of the cubic kernel stretched by `factor`, normalised."""
    reach = math.ceil(2 * factor) - 1
    x = np.abs(np.arange(-reach, reach + 1) / factor)
    a = _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    taps = np.where(x < 1, near, far)
    return (taps / taps.sum()).astype(np.float32)
