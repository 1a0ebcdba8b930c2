"""NLIP of a config: harmonization on two towers, or the whole on a model of four parts."""

import functools
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.build.captions import can_caption, make_captioner
from nlip_jax.build.names import lookup
from nlip_jax.build.objective import contrast_fields, objective
from nlip_jax.build.texts import Texts
from nlip_jax.config import Clock
from nlip_jax.errors import UsageError
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.losses.targets import NOISE_ADAPTIVE
from nlip_jax.methods.completion import DROPS, RULES, Completion
from nlip_jax.methods.nlip import WORKS, Nlip
from nlip_jax.methods.nlip_whole import NlipWhole, TextNoise
from nlip_jax.methods.retrieval import word_rows
from nlip_jax.methods.retriever import Retriever
from nlip_jax.sharding import num_row_shards, replicated

_WORDS_PER_DEVICE = 256  # embedded together
ESTIMATES = ("pass", "online")


def make_nlip(
    config: ConfigDict, *, model: Any, mesh: Mesh, clock: Clock, texts: Texts | None
) -> Nlip:
    """The method of `config.nlip`.

    Raises:
      UsageError: naming the field, its value and the rule.
    """
    own, completion = objective(config), make_completion(config)
    end = completion_end(config, clock=clock, completion=completion)
    refreshes = schedule(config, clock=clock, completion=completion, end=end)
    fields = {
        **contrast_fields(config, model=model, mesh=mesh),
        **make_estimation(config, mesh=mesh),
        "online_window": _online_window(config, clock=clock),
        "completion_end": end,
        "form": lookup(config.nlip.form, NOISE_ADAPTIVE[own.normaliser], field="nlip.form"),
        "weight": config.nlip.weight,
        "itc_weight": config.nlip.itc_weight,
        "completion": completion,
        "context_length": config.tokenizer.context_length,
        "refresh_steps": tuple(refreshes),
        "works": tuple(refreshes.values()),
    }
    if config.loss.duplicates == "positives" and config.nlip.form == "mixture_likelihood":
        raise UsageError(
            "config.loss.duplicates='positives': nlip.form='mixture_likelihood' is the likelihood "
            "of one partner; use duplicates='ignored' or form='smoothed_targets'"
        )
    if config.nlip.model == "dual_encoder":
        return Nlip(**fields)
    if texts is None:
        raise UsageError("config.nlip.model='four_part' is built with the texts of a run")
    return NlipWhole(**fields, **_whole(config, model=model, mesh=mesh, texts=texts, fields=fields))


def make_estimation(config: ConfigDict, *, mesh: Mesh) -> dict[str, Any]:
    """How noise is estimated: `fit` and `posterior`, as `Nlip` has them.

    Raises:
      UsageError: naming the field, its value and the rule.
    """
    fields = config.nlip
    percentiles = tuple(fields.clip_percentiles)
    if len(percentiles) != 2 or not percentiles[0] < percentiles[1]:
        raise UsageError(f"config.nlip.clip_percentiles={percentiles}: must be (low, high)")
    if fields.estimate not in ESTIMATES:
        raise UsageError(
            f"config.nlip.estimate={fields.estimate!r}: choose one of {', '.join(ESTIMATES)}"
        )
    return {
        "fit": functools.partial(
            gaussian_mixture.fit,
            clip_percentiles=percentiles,
            num_bins=fields.num_bins,
            max_iterations=fields.max_iterations,
            tolerance=fields.tolerance,
            reg_covar=fields.reg_covar,
            mesh=mesh,
        ),
        "posterior": functools.partial(gaussian_mixture.posterior, mesh=mesh),
    }


def _online_window(config: ConfigDict, *, clock: Clock) -> int:
    """Steps whose losses make an estimate; 0 where a pass does."""
    if config.nlip.estimate != "online":
        return 0
    if config.loss.duplicates == "positives":
        raise UsageError(
            "config.nlip.estimate='online': with loss.duplicates='positives' a pair that is there "
            "twice shares its loss with others and would look noisy; choose duplicates='ignored', "
            "or estimate='pass'"
        )
    window = clock.steps(config.nlip.online_window, field="nlip.online_window")
    if window < 1:
        raise UsageError(
            f"config.nlip.online_window={config.nlip.online_window!r} is {window} steps: an "
            "estimate is made of the losses of at least one; two epochs see every pair"
        )
    return window


def make_completion(config: ConfigDict) -> Completion:
    """Which texts a config trains on.

    Raises:
      UsageError: there is no such rule, or nothing makes the captions it needs.
    """
    fields = config.nlip.completion
    made = can_caption(config) or bool(fields.captions)
    rule = ("noise_prob" if made else "none") if fields.text == "auto" else fields.text
    lookup(rule, RULES, field="nlip.completion.text")
    lookup(fields.drop, DROPS, field="nlip.completion.drop")
    if rule != "none" and not made:
        raise UsageError(
            f"config.nlip.completion.text={fields.text!r} needs captions: take nlip.model="
            "four_part with nlip.lm_weight above 0, or name a column of captions in "
            "nlip.completion.captions"
        )
    if rule == "none" and fields.captions:
        raise UsageError(
            f"config.nlip.completion.captions={fields.captions!r} would not be read with "
            "completion.text='none': choose another rule, or take the folder out"
        )
    return Completion(
        rule=rule,
        threshold=fields.threshold,
        drop=fields.drop,
        drop_above=fields.drop_above,
    )


def completion_end(config: ConfigDict, *, clock: Clock, completion: Completion) -> int:
    """Step from which own texts alone are shown again; 0: there is none.

    Raises:
      UsageError: nothing would end there, or it lies outside of the run.
    """
    text = config.nlip.completion.until
    end = clock.steps(text, field="nlip.completion.until")
    if end and not completion.uses_captions:
        raise UsageError(
            f"config.nlip.completion.until={text!r}: no synthetic texts are shown that could end; "
            "set it to '0 epochs'"
        )
    if end >= clock.total_steps:
        raise UsageError(
            f"config.nlip.completion.until={text!r} is step {end} of a run of {clock.total_steps}; "
            "set it to '0 epochs' to show synthetic texts to the end"
        )
    return end


def schedule(
    config: ConfigDict, *, clock: Clock, completion: Completion, end: int = 0
) -> dict[int, tuple[str, ...]]:
    """Step of each refresh -> what it does, in the order of `WORKS`.

    Args:
      config: of the run.
      clock: of the run.
      completion: of the config.
      end: step at which completion ends, an episode of its own; 0: it does not.

    Raises:
      UsageError: a stage falls outside of the run.
    """
    fields, due = config.nlip, {}
    first = clock.steps(fields.warmup, field="nlip.warmup")
    if not 0 < first < clock.total_steps:
        raise UsageError(
            f"config.nlip.warmup={fields.warmup!r} is {first} steps: the first estimate must fall "
            f"inside the run of {clock.total_steps}"
        )

    def add(work: str, start: int, period: int, stop: int = clock.total_steps) -> None:
        for step in range(start, stop, period or clock.total_steps):
            due.setdefault(step, set()).add(work)

    add("estimate", first, clock.steps(fields.reestimate_every, field="nlip.reestimate_every"))
    has_concepts = can_caption(config) and config.concepts.top_k > 0
    after = clock.steps(fields.completion.after, field="nlip.completion.after")
    every = clock.steps(fields.completion.every, field="nlip.completion.every")
    if has_concepts:
        again = clock.steps(config.concepts.every, field="concepts.every")
        if again and config.concepts.retriever != "own":
            raise UsageError(
                f"config.concepts.every={config.concepts.every!r}: concepts.retriever="
                f"{config.concepts.retriever!r} finds the same each time; set it to '0 steps'"
            )
        add("concepts", first, again)
    makes_captions = completion.uses_captions and not fields.completion.captions
    start, stop = first + after if makes_captions else first, end or clock.total_steps
    if end and start >= end:
        raise UsageError(
            f"config.nlip.completion.until={fields.completion.until!r} is step {end}, and texts "
            f"are completed from step {start}; let it end later, or begin earlier (nlip.warmup, "
            "nlip.completion.after)"
        )
    if makes_captions:
        if start >= clock.total_steps:
            raise UsageError(
                f"config.nlip.completion.after={fields.completion.after!r}: {after} steps after "
                f"the warm-up of {first} the run of {clock.total_steps} is over; captions must be "
                "made inside of it"
            )
        add("captions", start, every, stop)
        if has_concepts and config.concepts.retriever == "own":  # another finds the same again
            add("concepts", start, every, stop)
    if end:
        due.setdefault(end, set())
    if completion.uses_match:
        for step in [step for step, works in due.items() if works & {"estimate", "captions"}]:
            due[step].add("match")
    return {
        step: tuple(work for work in WORKS if work in works)
        for step, works in sorted(due.items())
    }


def _whole(
    config: ConfigDict, *, model: Any, mesh: Mesh, texts: Texts, fields: dict[str, Any]
) -> dict[str, Any]:
    """What `NlipWhole` has beside the fields of `Nlip`."""
    own = config.nlip
    found = {
        "lm_weight": own.lm_weight,
        "ir_weight": own.ir_weight,
        "lm_noise_weight": own.lm_noise_weight,
        "lm_label_smoothing": own.lm_label_smoothing,
        "lm_stride": own.lm_stride,
        "seed": config.seed,
    }
    if own.ir_weight and not own.mask_ratio:
        raise UsageError(
            f"config.nlip.ir_weight={own.ir_weight}: nothing is there to reconstruct with "
            "nlip.mask_ratio=0; hide a share of the patches, or set ir_weight to 0"
        )
    if not own.lm_weight:
        return found
    rows = config.batch_size // (mesh.size * config.accumulation.micro_batches)
    if rows % own.lm_stride:
        raise UsageError(
            f"config.nlip.lm_stride={own.lm_stride} does not divide the {rows} rows that a device "
            "has at a time (batch_size over devices and micro_batches)"
        )
    found["text_noise"] = _text_noise(config, texts)
    make = functools.partial(
        make_captioner,
        config,
        model=model,
        tokenizer=texts.tokenizer,
        similarity=fields["similarity"],
    )
    found["captioner"] = make(
        config.captions.decoding,
        field="captions.decoding",
        min_confidence=config.captions.min_confidence,
    )
    found["evaluation_captioner"] = make(config.captions.evaluation, field="captions.evaluation")
    if texts.concepts is None:
        return found
    encode = texts.encoder_tokenizer or texts.tokenizer
    rows = word_rows(texts.concepts.words, prompt=config.concepts.prompt, tokenizer=encode)
    return found | {
        "concepts": texts.concepts,
        "concept_dropout": config.concepts.dropout,
        "concepts_in_itc": own.concepts_in_itc,
        "retriever": Retriever(
            word_rows=rows,
            top_k=config.concepts.top_k,
            encoder=texts.encoder,
            words_at_a_time=_WORDS_PER_DEVICE * num_row_shards(mesh),
            sharding=replicated(mesh),
        ),
    }


def _text_noise(config: ConfigDict, texts: Texts) -> TextNoise:
    own = config.nlip
    rate = tuple(own.text_mask_rate)
    if len(rate) != 2 or rate[0] > rate[1]:
        raise UsageError(f"config.nlip.text_mask_rate={rate}: must be (lowest, highest) share")
    if "mask" not in texts.tokenizer.special_ids and own.text_drop < 1:
        raise UsageError(
            f"config.nlip.text_drop={own.text_drop}: this vocabulary has no [MASK] to hide words "
            "behind; take one that has (tokenizer.name=bert, or sentencepiece trained here), or "
            "set text_drop to 1, which shows the captioner no text in training"
        )
    return TextNoise(
        rate=rate,
        mean_span=own.text_mask_span,
        drop=own.text_drop,
        mask_id=texts.tokenizer.special_ids.get("mask", 0),
    )
