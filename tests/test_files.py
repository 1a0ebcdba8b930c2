import json
import math

from nlip_jax.files import json_text


def test_json_of_numbers_that_are_not_finite():
    value = {"a": math.nan, "b": [1.5, -math.inf, {"c": math.inf}], "d": "NaN", "e": 3}
    expected = {"a": None, "b": [1.5, None, {"c": None}], "d": "NaN", "e": 3}
    assert json.loads(json_text(value)) == expected
