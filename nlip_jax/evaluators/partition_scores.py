"""How well two partitions of the same things agree, whatever their parts are called.

Definitions: Hubert & Arabie 1985 (adjusted Rand index); Vinh, Epps & Bailey 2010 (mutual
information, normalised and adjusted for chance), with the arithmetic mean of the two entropies, as
scikit-learn has them. Counts are integers and everything else is float64 on the host: a table of
counts is small.
"""

import math

import numpy as np


def contingency(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many things lie in each part of the first and of the second partition.

    Args:
      first: [n] integers, a part each.
      second: [n] integers.

    Returns:
      `[parts, parts]` int64, without empty parts.
    """
    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    cells = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
    return cells.reshape(len(rows), len(columns)).astype(np.int64)


def adjusted_rand_index(table: np.ndarray) -> float:
    """Share of pairs that both partitions treat alike, 1 for equal ones and 0 by chance.

    Args:
      table: of `contingency`.
    """
    sums = (_pairs(table), _pairs(table.sum(1)), _pairs(table.sum(0)), _pairs(table.sum()))
    # Python's integers: the product of two of them does not fit 64 bits.
    together, of_rows, of_columns, all_pairs = (int(counts.sum()) for counts in sums)
    if of_rows == of_columns in (0, all_pairs):  # all things apart or all in one, in both
        return 1.0
    expected = of_rows * of_columns / all_pairs
    return float((together - expected) / ((of_rows + of_columns) / 2 - expected))


def adjusted_mutual_information(table: np.ndarray) -> float:
    """Mutual information less what chance gives, 1 for equal partitions and 0 by chance.

    Args:
      table: of `contingency`.
    """
    rows, columns = table.sum(1), table.sum(0)
    if _is_trivial(rows, columns):
        return 1.0
    expected = expected_mutual_information(rows, columns)
    above = mutual_information(table) - expected
    most = (entropy(rows) + entropy(columns)) / 2 - expected
    # Where nothing lies between chance and the most, rounding alone decides the sign.
    tiny = np.finfo(np.float64).eps
    return float(above / (min(most, -tiny) if most < 0 else max(most, tiny)))


def normalised_mutual_information(table: np.ndarray) -> float:
    """Mutual information over the mean entropy, in [0, 1].

    Args:
      table: of `contingency`.
    """
    rows, columns = table.sum(1), table.sum(0)
    if _is_trivial(rows, columns):
        return 1.0
    mean = (entropy(rows) + entropy(columns)) / 2
    return float(mutual_information(table) / mean) if mean > 0 else 0.0


def mutual_information(table: np.ndarray) -> float:
    """In nats.

    Args:
      table: of `contingency`.
    """
    i, j = np.nonzero(table)
    share = table[i, j] / table.sum()
    ratio = np.log(table[i, j]) + math.log(table.sum())
    ratio = ratio - np.log(table.sum(1)[i]) - np.log(table.sum(0)[j])
    return max(float(np.sum(share * ratio)), 0.0)


def entropy(counts: np.ndarray) -> float:
    """Of a partition in nats, from the sizes of its parts `[k]`."""
    share = counts[counts > 0] / counts.sum()
    return float(-np.sum(share * np.log(share)))


def expected_mutual_information(rows: np.ndarray, columns: np.ndarray) -> float:
    """Mutual information of two random partitions with parts of given sizes, in nats.

    The sum over all values that a cell can take, weighted by the hypergeometric distribution; parts
    of one size have the same sum, which is computed once.

    Args:
      rows: [r] sizes of the parts of one partition.
      columns: [c] sizes of the parts of the other, with the same total.
    """
    n = int(rows.sum())
    log_factorial = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    total = 0.0
    for a, num_a in zip(*np.unique(rows, return_counts=True), strict=True):
        for b, num_b in zip(*np.unique(columns, return_counts=True), strict=True):
            cell = np.arange(max(1, a + b - n), min(a, b) + 1)
            log_weight = (
                (log_factorial[a] + log_factorial[b] - log_factorial[n])
                + (log_factorial[n - a] + log_factorial[n - b])
                - log_factorial[cell]
                - log_factorial[a - cell]
                - log_factorial[b - cell]
                - log_factorial[n - a - b + cell]
            )
            gain = cell / n * (np.log(cell) + math.log(n) - math.log(a) - math.log(b))
            total += float(num_a) * float(num_b) * float(np.sum(gain * np.exp(log_weight)))
    return total


def in_largest(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which things belong to the most frequent part of `first` in their part of `second`.

    Their share is the purity of `second`. The lowest of several parts as frequent counts.

    Args:
      first: [n] integers, the true classes.
      second: [n] integers, the clusters.

    Returns:
      `[n]` bool.
    """
    row = np.unique(first, return_inverse=True)[1]
    column = np.unique(second, return_inverse=True)[1]
    return contingency(first, second).argmax(0)[column] == row


def _pairs(counts: np.ndarray) -> np.ndarray:
    """Number of pairs of so many things; halves of products of neighbours are whole numbers."""
    return counts * (counts - 1) // 2


def _is_trivial(rows: np.ndarray, columns: np.ndarray) -> bool:
    """Whether both partitions have one part, or a part for each thing: they are equal."""
    n = rows.sum()
    return len(rows) == len(columns) and len(rows) in (1, n)
