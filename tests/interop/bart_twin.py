"""BART in float64 NumPy, slowly, with weights in Hugging Face's names and PyTorch's layout."""

import json
import math

import numpy as np
from safetensors.numpy import save_file

PAD = 1  # its piece for padding
SIZES = {
    "d_model": 8,
    "vocab_size": 20,
    "max_position_embeddings": 10,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 20,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": PAD,
}
CONFIG = SIZES | {
    "model_type": "bart",
    "activation_function": "gelu",
    "scale_embedding": False,
    "normalize_before": False,
    "dropout": 0.1,
}


def draw_weights(seed=0):
    """Random weights of a `BartModel`, float32 by name; the table of words once."""
    rng = np.random.default_rng(seed)
    d, vocab = SIZES["d_model"], SIZES["vocab_size"]

    def draw(*shape, center=0.0):
        return rng.normal(center, 0.3, shape).astype(np.float32)

    weights = {"shared.weight": draw(vocab, d)}
    for side, attentions in {
        "encoder": ["self_attn"],
        "decoder": ["self_attn", "encoder_attn"],
    }.items():
        weights[f"{side}.embed_positions.weight"] = draw(SIZES["max_position_embeddings"] + 2, d)
        norms = [f"{side}.layernorm_embedding"]
        for i in range(SIZES[f"{side}_layers"]):
            layer, ffn = f"{side}.layers.{i}", SIZES[f"{side}_ffn_dim"]
            for attention in attentions:
                for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    weights[f"{layer}.{attention}.{name}.weight"] = draw(d, d)
                    weights[f"{layer}.{attention}.{name}.bias"] = draw(d)
                norms.append(f"{layer}.{attention}_layer_norm")
            weights |= {f"{layer}.fc1.weight": draw(ffn, d), f"{layer}.fc1.bias": draw(ffn)}
            weights |= {f"{layer}.fc2.weight": draw(d, ffn), f"{layer}.fc2.bias": draw(d)}
            norms.append(f"{layer}.final_layer_norm")
        for norm in norms:
            weights |= {f"{norm}.weight": draw(d, center=1.0), f"{norm}.bias": draw(d)}
    return weights


def as_model(weights):
    """As `BartModel` may be saved: the table of words under all of its names."""
    table = weights["shared.weight"]
    sides = {f"{side}.embed_tokens.weight": table for side in ("encoder", "decoder")}
    return weights | sides


def as_generation(weights):
    """As `BartForConditionalGeneration` may be saved."""
    named = {f"model.{name}": weight for name, weight in weights.items()}
    bias = np.zeros((1, SIZES["vocab_size"]), np.float32)
    return named | {"lm_head.weight": weights["shared.weight"], "final_logits_bias": bias}


def write_folder(folder, weights, **config):
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    save_file(dict(weights), folder / "model.safetensors")
    return folder


class Bart:
    """The model: `encode` and `decode` give hidden states, `logits` those of the next pieces."""

    def __init__(self, weights):
        self.weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}

    def encode(self, ids):
        return self._run("encoder", ids, (ids != PAD)[:, None, None])

    def decode(self, ids, memory, memory_mask):
        length = ids.shape[1]
        mask = np.tril(np.ones((length, length), bool)) & (ids != PAD)[:, None, None]
        return self._run("decoder", ids, mask, memory, memory_mask[:, None, None])

    def logits(self, hidden):
        return hidden @ self.weights["shared.weight"].T

    def _run(self, side, ids, mask, memory=None, memory_mask=None):
        positions = self.weights[f"{side}.embed_positions.weight"]
        x = self.weights["shared.weight"][ids] + positions[2 + np.arange(ids.shape[1])]
        x = self._norm(f"{side}.layernorm_embedding", x)
        heads = SIZES[f"{side}_attention_heads"]
        for i in range(SIZES[f"{side}_layers"]):
            layer = f"{side}.layers.{i}"
            y = self._attend(f"{layer}.self_attn", x, x, mask, heads)
            x = self._norm(f"{layer}.self_attn_layer_norm", x + y)
            if memory is not None:
                y = self._attend(f"{layer}.encoder_attn", x, memory, memory_mask, heads)
                x = self._norm(f"{layer}.encoder_attn_layer_norm", x + y)
            y = self._linear(f"{layer}.fc2", gelu(self._linear(f"{layer}.fc1", x)))
            x = self._norm(f"{layer}.final_layer_norm", x + y)
        return x

    def _attend(self, name, query, memory, mask, heads):
        def project(letter, x):
            y = self._linear(f"{name}.{letter}_proj", x)
            return y.reshape(*y.shape[:2], heads, -1).transpose(0, 2, 1, 3)

        q, k, v = project("q", query), project("k", memory), project("v", memory)
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1])
        powers = np.exp(scores - scores.max(-1, keepdims=True)) * mask
        mixed = (powers / powers.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)
        return self._linear(f"{name}.out_proj", mixed.reshape(query.shape))

    def _linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        scale, bias = (self.weights[f"{name}.{kind}"] for kind in ("weight", "bias"))
        return centred / deviation * scale + bias


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
