"""A decoder that is a table, with a cache that tells when it is not the row's own."""

import jax
import jax.numpy as jnp
import numpy as np

PAD, BOS, EOS, VOCAB, STATES = 0, 1, 2, 6, 101


def random_table(seed: int, *, rounded: bool = False) -> np.ndarray:
    """Log-probabilities of the next token in every state, [states, v]; rounded ones have ties."""
    logits = np.random.default_rng(seed).normal(0, 1.5, (STATES, VOCAB)).astype(np.float32)
    logits[:, PAD] -= 20
    if rounded:
        return (-np.round(2 * np.abs(logits)) / 2).astype(np.float32)
    return np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))


def next_state(state, token):
    """Depends on all tokens so far, so that a cache of the wrong row shows."""
    return (31 * state + 7 * token + 1) % STATES


def start(images, max_length):
    """The cache before the first token."""
    return {"state": images, "seen": jnp.zeros((len(images), max_length), jnp.int32)}


def step_of(table):
    def step(cache, tokens, position):
        state = next_state(cache["state"], tokens)
        seen = cache["seen"].at[:, position].set(tokens)
        return jnp.asarray(table)[state], {"state": state, "seen": seen}

    return step


def controlled(log_probs, tokens, controls):
    """One row's log-probabilities [v] behind some tokens, by loops."""
    log_probs, size = log_probs.copy(), controls.no_repeat_ngram
    for token in set(tokens):
        log_probs[token] *= np.float32(controls.repetition_penalty)
    ngrams = [tokens[i : i + size] for i in range(len(tokens) - size + 1)] if size else []
    for token in range(len(log_probs)):
        if [*tokens, token][-size:] in ngrams or token in controls.forbidden:
            log_probs[token] = -np.inf
    return log_probs
