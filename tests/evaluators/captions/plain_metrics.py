"""BLEU, CIDEr-D and ROUGE-L by loops over dicts, one caption at a time, in float64."""

import math
from collections import Counter

import numpy as np


def grams(text: str, n: int) -> Counter:
    words = text.split()
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu(produced, references):
    """BLEU-1 to BLEU-4 of the corpus; the reference length closest to each caption's."""
    ours = sum(len(text.split()) for text in produced)
    theirs = 0
    for text, others in zip(produced, references, strict=True):
        length = len(text.split())
        theirs += min((abs(len(o.split()) - length), len(o.split())) for o in others)[1]
    values, product = [], 1.0
    for n in range(1, 5):
        right = guessed = 0
        for text, others in zip(produced, references, strict=True):
            counts = grams(text, n)
            guessed += sum(counts.values())
            right += sum(min(c, max(grams(o, n)[g] for o in others)) for g, c in counts.items())
        product *= (right + 1e-15) / (guessed + 1e-9)
        values.append(product ** (1 / n))
    ratio = (ours + 1e-15) / (theirs + 1e-9)
    return [value * (math.exp(1 - 1 / ratio) if ratio < 1 else 1) for value in values]


def cider(produced, references):
    """CIDEr-D of every image."""
    frequency = Counter(
        gram
        for others in references
        for gram in {g for o in others for n in range(1, 5) for g in grams(o, n)}
    )

    def vector(text, n):
        return {
            gram: count * (math.log(len(produced)) - math.log(max(1, frequency[gram])))
            for gram, count in grams(text, n).items()
        }

    def norm(weights):
        return math.sqrt(sum(weight**2 for weight in weights.values()))

    scores = []
    for text, others in zip(produced, references, strict=True):
        total = 0.0
        for other in others:
            apart = sum(grams(text, 2).values()) - sum(grams(other, 2).values())
            for n in range(1, 5):
                a, b = vector(text, n), vector(other, n)
                dot = sum(min(a[g], b[g]) * b[g] for g in a if g in b)
                size = norm(a) * norm(b)
                total += (dot / size if size else 0) * math.exp(-(apart**2) / (2 * 6.0**2)) / 4
        scores.append(10 * total / len(others))
    return scores


def rouge_l(produced, references):
    """ROUGE-L of every image."""

    def common(a, b):
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = (
                    table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
                )
        return table[-1, -1]

    scores = []
    for text, others in zip(produced, references, strict=True):
        ours, theirs = text.split(" "), [other.split(" ") for other in others]
        precision = max(common(ours, other) / len(ours) for other in theirs)
        recall = max(common(ours, other) / len(other) for other in theirs)
        both = precision * recall
        scores.append((1 + 1.44) * both / (recall + 1.44 * precision) if both else 0.0)
    return scores
