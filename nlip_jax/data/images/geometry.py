"""Shears, shifts and turns: uint8 `[h, w, 3]` RGB in and out, of the same shape.

Interpolated bilinearly; what moves into the image is grey.
"""

import math

import cv2
import numpy as np

_FILL = (128, 128, 128)


def flip(image: np.ndarray) -> np.ndarray:
    """Mirrors left and right."""
    return cv2.flip(image, 1)


def shear_x(image: np.ndarray, slope: float) -> np.ndarray:
    """Moves every row to the left by `slope` times its distance from the top."""
    return _warp(image, [[1, slope], [0, 1]])


def shear_y(image: np.ndarray, slope: float) -> np.ndarray:
    """Moves every column up by `slope` times its distance from the left."""
    return _warp(image, [[1, 0], [slope, 1]])


def translate_x(image: np.ndarray, share: float) -> np.ndarray:
    """Moves the image to the left by a share of its width."""
    return _warp(image, np.eye(2), shift=(share * image.shape[1], 0))


def translate_y(image: np.ndarray, share: float) -> np.ndarray:
    """Moves the image up by a share of its height."""
    return _warp(image, np.eye(2), shift=(0, share * image.shape[0]))


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turns the image counterclockwise around its middle."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = (image.shape[1] / 2, image.shape[0] / 2)
    return _warp(image, [[cos, -sin], [sin, cos]], origin=middle)


def _warp(
    image: np.ndarray,
    matrix: np.typing.ArrayLike,
    *,
    origin: tuple[float, float] = (0, 0),
    shift: tuple[float, float] = (0, 0),
) -> np.ndarray:
    """Shows at (x, y), counted from the origin, what was at matrix (x, y) + shift."""
    center = np.subtract(origin, 0.5)  # OpenCV counts from the middle of the first pixel
    offset = center - np.dot(matrix, center) + shift
    return cv2.warpAffine(
        image,
        np.column_stack([matrix, offset]),
        image.shape[1::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=_FILL,
    )
