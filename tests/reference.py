"""Slow and obvious float64 NumPy of every loss and estimator, to hold the fast code against."""

import numpy as np

# Losses: rows of logits [b], the positive at `own`.


def log_softmax(row):
    row = np.asarray(row, np.float64)
    return row - row.max() - np.log(np.sum(np.exp(row - row.max())))


def highest_weight(columns):
    return 1 - 1 / columns


def identity_row(row, own):
    return -log_softmax(row)[own]


def smoothed_row(row, own, weight):
    columns = len(row)
    weight = min(weight, highest_weight(columns))
    loss = 0.0
    for column, log_probability in enumerate(log_softmax(row)):
        target = 1 - weight if column == own else weight / (columns - 1)
        loss -= target * log_probability
    return loss


def mixture_likelihood_row(row, own, weight):
    columns = len(row)
    weight = min(weight, highest_weight(columns))
    probability = np.exp(log_softmax(row))
    others = sum(probability[column] for column in range(columns) if column != own)
    if columns == 1:
        return -np.log(probability[own])
    return -np.log((1 - weight) * probability[own] + weight / (columns - 1) * others)


def pair_losses(per_image, per_text, row_loss=identity_row, weight=None):
    """[b] mean of both directions; `weight` [b] goes to `row_loss` where it takes one."""
    losses = []
    for i in range(len(per_image)):
        extra = () if weight is None else (weight[i],)
        losses.append((row_loss(per_image[i], i, *extra) + row_loss(per_text[i], i, *extra)) / 2)
    return np.array(losses)


def info_nce(image_embed, text_embed, logit_scale):
    per_image = logit_scale * np.asarray(image_embed, np.float64) @ np.asarray(text_embed).T
    return pair_losses(per_image, per_image.T).mean()


def token_max_similarity(image_tokens, text_tokens, image_mask, text_mask):
    """Both [images, texts]: the image's and the text's mean of the best match of its tokens."""
    b = len(image_tokens)
    of_image, of_text = np.zeros((b, b)), np.zeros((b, b))
    for i in range(b):
        image = np.asarray(image_tokens[i], np.float64)[np.asarray(image_mask[i], bool)]
        for j in range(b):
            text = np.asarray(text_tokens[j], np.float64)[np.asarray(text_mask[j], bool)]
            if len(image) and len(text):
                of_image[i, j] = np.mean([max(token @ other for other in text) for token in image])
                of_text[i, j] = np.mean([max(token @ other for other in image) for token in text])
    return of_image, of_text


def gradient(function, x, step=1e-6):
    """Central differences of a scalar function of one array."""
    x = np.array(x, np.float64)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = function(x)
        x[index] = kept - step
        result[index] = (above - function(x)) / (2 * step)
        x[index] = kept
    return result


# Estimators.


def clipped_histogram(values, low, high, num_bins):
    counts = np.zeros(num_bins, np.int64)
    for value in values:
        if np.isfinite(value):
            position = (np.float64(value) - low) / (high - low) * num_bins
            counts[int(np.clip(position, 0, num_bins - 1))] += 1
    return counts


def percentile(values, percent):
    """Linear between the two nearest of the sorted values."""
    ordered = sorted(float(value) for value in values if np.isfinite(value))
    position = percent / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def log_joint(x, mean, variance, weight):
    """[n, 2] log of weight times density."""
    x = np.asarray(x, np.float64)[:, None]
    return np.log(weight) - 0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def mixture_posterior(x, mean, variance, weight):
    """[n, 2] probabilities of the components."""
    joint = log_joint(x, mean, variance, weight)
    return np.exp(joint - np.logaddexp(joint[:, 0], joint[:, 1])[:, None])


def em_update(x, mean, variance, weight, reg_covar):
    share = mixture_posterior(x, mean, variance, weight)
    size = share.sum(axis=0)
    mean = (share * x[:, None]).sum(axis=0) / size
    variance = (share * (x[:, None] - mean) ** 2).sum(axis=0) / size + reg_covar
    return mean, variance, size / len(x)
