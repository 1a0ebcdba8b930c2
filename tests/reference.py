"""Slow and obvious float64 NumPy of every loss and estimator, to hold the fast code against."""

import numpy as np

# Similarities: both [rows, columns], as the rows and as the columns see each other.


def dot_similarity(rows, columns, row_mask=None, column_mask=None):
    product = np.array([[float(row @ column) for column in columns] for row in rows])
    return product, product


def token_max_similarity(rows, columns, row_mask, column_mask):
    """The row's and the column's mean of the best match of its tokens."""
    of_row, of_column = np.zeros((2, len(rows), len(columns)))
    for i in range(len(rows)):
        row = rows[i][row_mask[i]]
        for j in range(len(columns)):
            column = columns[j][column_mask[j]]
            if len(row) and len(column):
                of_row[i, j] = np.mean([max(token @ other for other in column) for token in row])
                of_column[i, j] = np.mean([max(token @ other for other in row) for token in column])
    return of_row, of_column


# Losses: a row of logits [n] over the columns that count. `positive` [n] bool says which are its
# own: one, or more where duplicates are. What it should predict is a form and its argument.


def log_softmax(row):
    row = np.asarray(row, np.float64)
    return row - row.max() - np.log(np.sum(np.exp(row - row.max())))


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def cross_entropy(row, target, normaliser):
    """Against shares of one prediction (softmax), or an answer to each column (sigmoid)."""
    if normaliser == "softmax":
        return -np.sum(target * log_softmax(row))
    answers = target * log_sigmoid(row) + (1 - target) * log_sigmoid(-row)
    return -np.sum(answers)


def hard_target(positive, normaliser):
    share = 1.0 if normaliser == "sigmoid" else 1 / np.sum(positive)
    return np.where(positive, share, 0.0)


def identity(row, positive, normaliser, argument):
    return cross_entropy(row, hard_target(positive, normaliser), normaliser)


def smoothed(row, positive, normaliser, weight):
    own, others = np.sum(positive), np.sum(~positive)
    target = hard_target(positive, normaliser)
    mass = np.sum(target)
    if others:
        weight = min(weight, 1 - own / len(row))
        target = np.where(positive, (1 - weight) * target, weight * mass / others)
    return cross_entropy(row, target, normaliser)


def label_smoothed(row, positive, normaliser, share):
    target = hard_target(positive, normaliser)
    uniform = np.sum(target) / len(row)
    return cross_entropy(row, (1 - share) * target + share * uniform, normaliser)


def mixture_likelihood(row, positive, normaliser, weight):
    (own,) = np.flatnonzero(positive)
    if normaliser == "softmax":
        probability, others = np.exp(log_softmax(row)), len(row) - 1
        if not others:
            return -np.log(probability[own])
        weight = min(weight, 1 - 1 / len(row))
        elsewhere = np.sum(np.delete(probability, own))
        return -np.log((1 - weight) * probability[own] + weight / others * elsewhere)
    weight = min(weight, 0.5)
    right = np.exp(log_sigmoid(row[own]))
    shown = (1 - weight) * right + weight * (1 - right)
    return -np.log(shown) - np.sum(log_sigmoid(-np.delete(row, own)))


FORMS = {
    "identity": identity,
    "smoothed": smoothed,
    "label_smoothed": label_smoothed,
    "mixture_likelihood": mixture_likelihood,
}


def same_key(keys, i, j):
    return any(np.array_equal(key[i], key[j]) for key in keys)


def pair_losses(
    per_row, per_column, form, arguments, *, normaliser, valid, keys=(), duplicates="negatives"
):
    """[b] mean of both directions of logits [b, b]; `arguments` [b] go to the form."""
    losses = np.zeros(len(valid))
    for i in np.flatnonzero(valid):
        counted = [j for j in np.flatnonzero(valid)]
        if duplicates == "ignored":
            counted = [j for j in counted if j == i or not same_key(keys, i, j)]
        positive = np.array([
            j == i or (duplicates == "positives" and same_key(keys, i, j)) for j in counted
        ])
        for row in (per_row[i], per_column[:, i]):
            losses[i] += FORMS[form](row[counted], positive, normaliser, arguments[i]) / 2
    return losses


def soft_target_losses(logits, teacher, own, soft_share, *, normaliser, valid):
    """[b] of logits [b, n]: targets are a teacher's softmax, mixed with what is right."""
    losses = []
    for row, seen, right in zip(logits, teacher, own, strict=True):
        target = np.zeros(len(row))
        target[valid] = soft_share * np.exp(log_softmax(seen[valid]))
        target[right] += 1 - soft_share
        losses.append(cross_entropy(row[valid], target[valid], normaliser))
    return np.array(losses)


def best_tokens(tokens, mask, others, other_mask, share):
    """Per example the places, in order, of the tokens that match any token of the others best."""
    chosen = []
    for own, real in zip(tokens, mask, strict=True):
        order = []
        for place, token in enumerate(own):
            matches = [token @ other for other in others[other_mask]]
            # Padding comes last, and equals in their order.
            order.append((not real[place], -max(matches) if real[place] and matches else 0, place))
        count = max(1, int(np.ceil(share * len(own))))
        chosen.append(sorted(place for *_, place in sorted(order)[:count]))
    return np.array(chosen)


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


def lloyd(x, centroids, num_iterations):
    """k-means: labels, centroids and objective; the lower of two centroids as near wins."""
    x, centroids = np.asarray(x, np.float64), np.array(centroids, np.float64)
    labels = None
    for _ in range(num_iterations):
        labels = [int(np.argmin([np.sum((row - c) ** 2) for c in centroids])) for row in x]
        for j in set(labels):
            centroids[j] = np.mean([row for row, own in zip(x, labels, strict=True) if own == j], 0)
    distances = np.array([[np.sum((row - c) ** 2) for c in centroids] for row in x])
    return distances.argmin(1), centroids, distances.min(1).sum()


# Evaluators.


def logistic_objective(x, labels, weights, bias, regularisation):
    """scikit-learn's LogisticRegression over C n: mean cross-entropy plus penalty."""
    x, weights = np.asarray(x, np.float64), np.asarray(weights, np.float64)
    losses = [
        -log_softmax(row @ weights + bias)[label] for row, label in zip(x, labels, strict=True)
    ]
    return np.mean(losses) + regularisation / (2 * len(x)) * np.sum(weights**2)


def vote(train, train_labels, row, k, weight_of):
    """Classes by falling votes of the k nearest by cosine; equal votes by lower class."""
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    similarity = np.asarray(unit, np.float64) @ (row / np.linalg.norm(row))
    near = sorted(range(len(train)), key=lambda i: (-similarity[i], i))[:k]
    votes = {}
    for i in near:
        votes[int(train_labels[i])] = votes.get(int(train_labels[i]), 0) + weight_of(similarity[i])
    return sorted(votes, key=lambda label: (-votes[label], label))


def sgd_probe(x, labels, weights, orders, *, rates, batch_size, momentum, weight_decay):
    """PyTorch's SGD on the mean cross-entropy of a linear layer; an order of rows an epoch."""
    x, weights = np.asarray(x, np.float64), np.array(weights, np.float64)
    bias = np.zeros(weights.shape[1])
    speed = [np.zeros_like(weights), np.zeros_like(bias)]
    for order, rate in zip(orders, rates, strict=True):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            error = np.array([np.exp(log_softmax(x[i] @ weights + bias)) for i in rows])
            error[np.arange(len(rows)), labels[rows]] -= 1
            gradients = [x[rows].T @ error / len(rows), error.mean(0)]
            gradients[0] += weight_decay * weights
            gradients[1] += weight_decay * bias
            speed = [momentum * s + g for s, g in zip(speed, gradients, strict=True)]
            weights, bias = weights - rate * speed[0], bias - rate * speed[1]
    return weights, bias


# Losses of captions and of masked images.


def caption_losses(hidden, table, targets, label_smoothing):
    """[b] mean over a row's targets of the cross entropy; 0 is no target."""
    losses = []
    for states, row in zip(hidden, targets, strict=True):
        of_each = []
        for state, target in zip(states, row, strict=True):
            if target:
                wanted = np.full(len(table), label_smoothing / len(table))
                wanted[target] += 1 - label_smoothing
                of_each.append(-np.sum(wanted * log_softmax(table @ state)))
        losses.append(np.mean(of_each) if of_each else 0.0)
    return np.array(losses)


def reconstruction_losses(predicted, image, visible, patch_size, normalise=True):
    """[b] mean squared error over the values of the hidden patches."""
    losses = []
    across = image.shape[2] // patch_size
    for guess, pixels, seen in zip(predicted, image, visible, strict=True):
        of_each = []
        for place in set(range(len(guess))) - set(seen.tolist()):
            top, left = place // across * patch_size, place % across * patch_size
            patch = pixels[top : top + patch_size, left : left + patch_size].ravel()
            if normalise:
                variance = np.sum((patch - patch.mean()) ** 2) / (len(patch) - 1)
                patch = (patch - patch.mean()) / np.sqrt(variance + 1e-6)
            of_each.append(np.mean((guess[place] - patch) ** 2))
        losses.append(np.mean(of_each) if of_each else 0.0)
    return np.array(losses)


# Estimates from what training saw. `seen`: (step, ids, losses) of every batch part.


def recent_losses(seen, window, count, before=None):
    """The mean of each example's finite losses in the window, or else its value before."""
    values = []
    for example in range(count):
        found = [
            float(loss)
            for step, ids, losses in seen
            for i, loss in zip(ids, losses, strict=True)
            if step in window and i == example and np.isfinite(loss)
        ]
        last = before[example] if before is not None and example < len(before) else np.nan
        values.append(np.mean(found) if found else last)
    return np.array(values, np.float64)
