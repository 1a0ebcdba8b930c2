"""The numbers a config may hold: a wrong one is refused before anything is built or compiled."""

import fnmatch

from ml_collections import ConfigDict

from nlip_jax.config import flatten
from nlip_jax.errors import UsageError

# Field, as a pattern -> interval; a square bracket takes its end in. The parts check what depends
# on more than one field.
RANGES = {
    "seed": "[0, 2147483647]",
    "*.seed": "[0, 2147483647]",
    "data.plant_mismatch": "[0, 1)",
    "tokenizer.vocab_size": "[8, inf)",
    "data.crop_scale": "(0, 1]",
    "data.crop_ratio": "(0, inf)",
    "data.max_bad_fraction": "[0, 1]",
    "data.mask_rate": "(0, 1]",
    "data.max_pixels": "[1, inf)",
    "data.keep_range": "[-inf, inf]",
    "data.augment.color_jitter": "[0, inf)",
    "data.augment.*_prob": "[0, 1]",
    "data.augment.blur_sigma": "(0, inf)",
    "data.augment.randaugment_ops": "[1, inf)",
    "data.augment.randaugment_magnitude": "[0, 10]",
    "data.storage.cache_bytes": "[0, inf)",
    "data.storage.attempts": "[1, inf)",
    "*.caption_probabilities": "[0, 1]",
    "data.cache_bytes": "[0, inf)",
    "data.workers": "[0, inf)",
    "data.threads": "[0, inf)",
    "data.prefetch": "[1, inf)",
    "*.num_images": "[0, inf)",
    "evaluators.*.examples": "[0, inf)",
    "evaluators.judgement.*.rounds": "[1, inf)",
    "evaluators.*.regularisation": "[0, inf)",
    "evaluators.*.validation_share": "(0, 1)",
    "evaluators.*.tolerance": "[0, inf)",
    "evaluators.*.max_iterations": "[1, inf)",
    "evaluators.*.learning_rate": "[0, inf)",
    "evaluators.*.momentum": "[0, 1)",
    "evaluators.*.weight_decay": "[0, inf)",
    "evaluators.*.batch_size": "[1, inf)",
    "evaluators.*.epochs": "[1, inf)",
    "evaluators.*.num_shots": "[1, inf)",
    "evaluators.*.num_seeds": "[1, inf)",
    "evaluators.*.num_neighbours": "[1, inf)",
    "evaluators.*.temperature": "(0, inf)",
    "evaluators.*.num_iterations": "[1, inf)",
    "evaluators.*.num_restarts": "[1, inf)",
    "tokenizer.max_sentences": "[1, inf)",
    "tokenizer.context_length": "[2, inf)",
    "model.*.mlp_dim": "[0, inf)",
    "model.dropout": "[0, 1)",
    "model.init_temperature": "[0, inf)",
    "model.max_logit_scale": "[0, inf)",
    "loss.tile": "[0, inf)",
    "loss.token_keep": "(0, 1]",
    "loss.token_group": "[1, inf)",
    "align.label_smoothing": "[0, 1)",
    "nlip.weight": "[0, 1]",
    "nlip.clip_percentiles": "[0, 100]",
    "nlip.num_bins": "[2, inf)",
    "nlip.max_iterations": "[1, inf)",
    "nlip.tolerance": "[0, inf)",
    "nlip.reg_covar": "(0, inf)",
    "nlip.num_shown": "[0, inf)",
    "nlip.lm_noise_weight": "[0, 1]",
    "nlip.*_weight": "[0, inf)",
    "nlip.lm_label_smoothing": "[0, 1)",
    "nlip.lm_stride": "[1, inf)",
    "nlip.mask_ratio": "[0, 1)",
    "nlip.text_drop": "[0, 1]",
    "nlip.text_mask_rate": "[0, 1]",
    "nlip.text_mask_span": "[1, inf)",
    "nlip.completion.threshold": "[0, 1]",
    "nlip.completion.drop_above": "[0, 1]",
    "concepts.top_k": "[0, inf)",
    "concepts.max_words": "[1, inf)",
    "concepts.min_count": "[1, inf)",
    "concepts.min_share": "[0, 1]",
    "concepts.max_size": "[1, inf)",
    "concepts.max_captions": "[1, inf)",
    "concepts.max_tokens": "[1, inf)",
    "concepts.dropout": "[0, 1]",
    "captions.top_p": "(0, 1]",
    "captions.top_k": "[1, inf)",
    "captions.temperature": "(0, inf)",
    "captions.beams": "[1, inf)",
    "captions.min_length": "[0, inf)",
    "captions.max_length": "[1, inf)",
    "captions.repetition_penalty": "(0, inf)",
    "captions.no_repeat_ngram": "[0, inf)",
    "captions.candidates": "[1, inf)",
    "optimizer.learning_rate": "[0, inf)",
    "optimizer.b1": "[0, 1)",
    "optimizer.b2": "[0, 1)",
    "optimizer.eps": "(0, inf)",
    "optimizer.weight_decay": "[0, inf)",
    "optimizer.clip_norm": "[0, inf)",
    "schedule.end": "[0, 1]",
    "spikes.z_score": "(0, inf)",
    "spikes.max_skipped": "[0, inf)",
    "ema.decay": "[0, 1)",
    "accumulation.micro_batches": "[1, inf)",
    "mesh.fsdp_min_bytes": "[0, inf)",
    "mesh.max_replicated": "[0, 1]",
    "mesh.slices": "[1, inf)",
    "checkpoint.keep": "[1, inf)",
    "evaluation.rows_per_device": "[1, inf)",
    "evaluation.bootstrap": "[0, inf)",
    "log.peak_tflops": "[0, inf)",
}


def check_numbers(config: ConfigDict) -> None:
    """Refuses numbers that are not finite or lie outside of their interval.

    Raises:
      UsageError: naming the field, its value and the interval.
    """
    for name, value in flatten(config).items():
        found = (RANGES[pattern] for pattern in RANGES if fnmatch.fnmatchcase(name, pattern))
        interval = next(found, "(-inf, inf)")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not _lies_in(number, interval):
                raise UsageError(f"config.{name}={value}: must be finite and lie in {interval}")


def _lies_in(number: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    return above and below
