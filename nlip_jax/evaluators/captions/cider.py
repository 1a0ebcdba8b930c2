"""CIDEr-D, with document frequencies from the references of the evaluated images.

Vedantam et al. 2015, equations 2 to 5; n-grams of the produced caption are clipped, and a Gaussian
punishes a difference in length (sigma = 6).
"""

import numpy as np

from nlip_jax.evaluators.captions.ngrams import NGrams, look_up
from nlip_jax.evaluators.captions.scored import Captioned, Scores

_SIGMA = 6.0
_FACTOR = 10.0


def cider(captioned: Captioned) -> Scores:
    """Returns "cider", the mean over images; 0 for a single image, where no word is telling."""
    num_images, owners = len(captioned.produced), captioned.owners
    of_references = owners[num_images:]
    # The protocol takes the number of bigrams for the length.
    lengths = captioned.ngrams[1].lengths
    apart = lengths[:num_images][of_references] - lengths[num_images:]
    penalty = np.exp(-(apart.astype(np.float64) ** 2) / (2 * _SIGMA**2))
    similarity = [_similarity(ngrams, owners, num_images) for ngrams in captioned.ngrams]
    by_reference = np.mean(similarity, axis=0) * penalty
    counts = np.bincount(of_references, minlength=num_images)
    per_image = _FACTOR * np.bincount(of_references, by_reference, num_images) / counts
    return Scores({"cider": float(per_image.mean())}, {"cider": per_image})


def _similarity(ngrams: NGrams, owners: np.ndarray, num_images: int) -> np.ndarray:
    """Cosine of each reference with the produced caption of its image, `[references]`."""
    keys, is_reference = ngrams.keys(owners), ngrams.text >= num_images
    images_with = np.unique(keys[is_reference]) % ngrams.num_grams
    frequency = np.bincount(images_with, minlength=ngrams.num_grams)
    rarity = np.log(float(num_images)) - np.log(np.maximum(frequency, 1.0))
    weights = ngrams.count * rarity[ngrams.gram]
    norms = np.sqrt(np.bincount(ngrams.text, weights**2, len(owners)))

    produced = look_up(keys[is_reference], keys[~is_reference], weights[~is_reference])
    theirs = weights[is_reference]
    dots = np.bincount(
        ngrams.text[is_reference] - num_images,
        np.minimum(produced, theirs) * theirs,
        len(owners) - num_images,
    )
    scale = norms[num_images:] * norms[:num_images][owners[num_images:]]
    return np.divide(dots, scale, out=np.zeros(len(dots)), where=scale > 0)
