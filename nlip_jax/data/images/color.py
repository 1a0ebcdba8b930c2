"""Changes of colour and sharpness: uint8 `[h, w, 3]` RGB in and out, of the same shape."""

import cv2
import numpy as np

_LEVELS = np.arange(256)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Scales all values; 0 is black, 1 changes nothing."""
    return _mapped(image, _LEVELS * factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Moves all values away from the mean grey; 0 is grey, 1 changes nothing."""
    mean = round(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])
    return _mapped(image, mean + (_LEVELS - mean) * factor)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Moves every pixel away from its grey; 0 is grey, 1 changes nothing."""
    return cv2.addWeighted(image, factor, grayscale(image), 1 - factor, 0)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turns the circle of hues (of HSV) by a share of the full turn, in [-0.5, 0.5]."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turned = (_LEVELS + round(shift * 256)) % 256
    hsv = _mapped(hsv, np.stack([turned, _LEVELS, _LEVELS], 1))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Moves every pixel away from the mean of its 3 x 3 neighbours; 1 changes nothing.

    The mean counts the pixel itself five times, and pixels at the edge stay, as in Pillow.
    """
    inner = np.s_[1:-1, 1:-1]
    smooth = image.copy()
    smooth[inner] = cv2.filter2D(image, -1, _SMOOTH)[inner]
    return cv2.addWeighted(image, factor, smooth, 1 - factor, 0)


def grayscale(image: np.ndarray) -> np.ndarray:
    """The luma of Rec. 601 in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blurs with a standard deviation in pixels; the image is mirrored at its edges."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def invert(image: np.ndarray) -> np.ndarray:
    """The negative."""
    return cv2.bitwise_not(image)


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Inverts values from the threshold on; 256 changes nothing."""
    return _mapped(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def posterize(image: np.ndarray, bits: float) -> np.ndarray:
    """Keeps the highest bits of every value, their number rounded; 8 changes nothing."""
    lost = 8 - round(bits)
    return _mapped(image, _LEVELS >> lost << lost)


def auto_contrast(image: np.ndarray) -> np.ndarray:
    """Stretches every channel to [0, 255], but for channels of a single value."""
    low = cv2.reduce(image, 0, cv2.REDUCE_MIN).reshape(-1, 3).min(0).astype(np.float64)
    high = cv2.reduce(image, 0, cv2.REDUCE_MAX).reshape(-1, 3).max(0)
    flat = low >= high
    scale = 255 / np.where(flat, 1, high - low)
    stretched = np.floor((_LEVELS[:, None] - low) * scale + 1e-6)
    return _mapped(image, np.where(flat, _LEVELS[:, None], stretched))


def equalize(image: np.ndarray) -> np.ndarray:
    """Makes the histogram of every channel as even as it can be, by Pillow's formula."""
    counts = [cv2.calcHist([image], [c], None, [256], [0, 256]).ravel() for c in range(3)]
    return _mapped(image, np.stack([_equalizing(c.astype(np.int64)) for c in counts], 1))


def color_jitter(
    image: np.ndarray, amounts: tuple[float, float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue in random order, as torchvision does.

    Args:
      image: `[h, w, 3]` uint8.
      amounts: of brightness, contrast and saturation, whose factors are drawn from
        [max(0, 1 - amount), 1 + amount], and of hue, whose shift is drawn from [-amount, amount].
      rng: the only source of randomness.

    Returns:
      `[h, w, 3]` uint8.
    """
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    weakest = np.maximum(neutral - amounts, [0.0, 0.0, 0.0, -0.5])
    values = rng.uniform(weakest, neutral + amounts)
    for number in rng.permutation(len(_JITTER)).tolist():
        if amounts[number]:
            image = _JITTER[number](image, float(values[number]))
    return image


_JITTER = (brightness, contrast, saturation, hue)


def _mapped(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replaces every value v by values[v], rounded and clipped; values `[256]` or `[256, 3]`."""
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table if table.ndim == 1 else table[None])


def _equalizing(counts: np.ndarray) -> np.ndarray:
    """What becomes of the 256 values of a channel that occur `counts` times."""
    occurring = np.flatnonzero(counts)
    step = (counts.sum() - counts[occurring[-1]]) // 255
    if not step:
        return _LEVELS
    return (step // 2 + counts.cumsum() - counts) // step
