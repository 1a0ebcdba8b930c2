"""Numbers of a config: every one that would only fail hours later is refused at the start."""

import fnmatch

import pytest

from configs import base, evaluators, quickstart
from nlip_jax.commands.ranges import RANGES, check_numbers
from nlip_jax.config import flatten
from nlip_jax.errors import UsageError


def test_the_defaults_are_fine():
    check_numbers(base.get_config())
    check_numbers(quickstart.get_config())


def test_every_range_means_a_field():
    config = quickstart.get_config()
    config.evaluators.judgement.cxc = evaluators.judgement("captions.json", sis="sis.csv")
    for kind in ("linear_probe", "few_shot", "knn"):
        config.evaluators[kind].x = getattr(evaluators, kind)(*[evaluators.class_scenes()] * 2)
    config.evaluators.clustering.x = evaluators.clustering("zip", evaluators.zip_set())
    names = flatten(config)
    for pattern in RANGES:
        assert fnmatch.filter(names, pattern), pattern


@pytest.mark.parametrize(
    ("field", "value", "interval"),
    [
        ("seed", -1, "[0, 2147483647]"),
        ("data.synthetic.seed", -1, "[0, 2147483647]"),
        ("model.init_temperature", float("nan"), "[0, inf)"),
        ("model.max_logit_scale", float("inf"), "[0, inf)"),
        ("optimizer.learning_rate", float("inf"), "[0, inf)"),
        ("optimizer.b1", 1.0, "[0, 1)"),
        ("optimizer.eps", 0.0, "(0, inf)"),
        ("nlip.num_bins", 0, "[2, inf)"),
        ("nlip.clip_percentiles", (1.0, 101.0), "[0, 100]"),
        ("data.crop_scale", (0.0, 1.0), "(0, 1]"),
        ("checkpoint.keep", 0, "[1, inf)"),
    ],
)
def test_numbers_that_are_refused(field, value, interval):
    config = base.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UsageError) as error:
        check_numbers(config)
    assert f"config.{field}=" in str(error.value) and interval in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("optimizer.b1", 0.0), ("schedule.end", 1.0), ("nlip.clip_percentiles", (0, 100))],
)
def test_ends_that_belong_to_their_interval(field, value):
    config = base.get_config()
    config.update_from_flattened_dict({field: value})
    check_numbers(config)
