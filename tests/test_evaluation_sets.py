"""The named sets of the papers, and the page that describes them."""

import re
from pathlib import Path

import pytest

from configs import base, evaluation_sets, evaluators
from nlip_jax import build
from nlip_jax.build.blocks import take_block, take_class_block
from nlip_jax.build.languages import by_language
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.prompts.entries import shipped
from nlip_jax.evaluators.summary import AVERAGE

PAGE = (Path(evaluation_sets.__file__).parent / "EVALUATION_SETS.md").read_text()


def test_every_entry_is_there_and_on_the_page():
    assert len(evaluation_sets.NLIP) == 12 and len(evaluation_sets.PROTOCLIP) == 10
    names = {*evaluation_sets.NLIP, *evaluation_sets.PROTOCLIP}
    assert names == set(shipped())
    rows = dict(re.findall(r"^\| `(\w+)`.*? \| (.*)$", PAGE, re.MULTILINE))
    for name in names:
        *_, webdataset, tfds, _ = rows[name].split("|")
        if name in evaluation_sets.TFDS:
            data_set, split = evaluation_sets.TFDS[name]
            assert f"`{data_set}`, {split}" in tfds
            assert "none" not in webdataset
        else:
            assert "read as `webdataset`" in tfds
    assert set(evaluation_sets.LAYOUTS) <= rows.keys()
    for name in ("COCO", "Flickr30K", "Karpathy", "Multi30K", "XM3600", "Crisscrossed Captions"):
        assert name in PAGE
    assert "Winoground" in PAGE and "SugarCrepe" in PAGE


def test_the_lines_of_the_page_are_config_lines():
    c = base.get_config()
    scope = {"c": c, "base": base, "evaluators": evaluators, "evaluation_sets": evaluation_sets}
    for lines in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(lines, scope)
    assert len(c.evaluators.zero_shot) == len(shipped()) + 1
    for name, spec in c.evaluators.zero_shot.items():
        take_class_block(spec, field=name)
    for kind in ("retrieval", "caption"):
        for name, spec in c.evaluators[kind].items():
            take_block(spec, field=name)
            if spec.get("languages"):
                assert set(by_language(spec, field=name)) == set(spec.languages)
    assert set(c.evaluators.pair_choice) == {"winoground", "sugar_crepe"}
    assert set(c.evaluators.judgement.cxc.ratings) == {"sts", "sis", "sits"}


@pytest.mark.parametrize("layout", evaluation_sets.LAYOUTS)
@pytest.mark.parametrize("group", evaluation_sets.GROUPS)
def test_groups(group, layout):
    c = evaluation_sets.get_config(f"data/sets,group={group},layout={layout}")
    sets = c.evaluators.zero_shot
    assert set(sets) == set(getattr(evaluation_sets, group.upper()))
    for name, spec in sets.items():
        has_it = layout != "tfds" or name in evaluation_sets.TFDS
        assert spec.source == (layout if has_it else "webdataset")
        assert "data/sets" in str(spec[spec.source]) and spec.prompts == name
        assert spec.metric == ("top1" if group == "protoclip" else "auto")


def test_settings_of_the_config():
    c = evaluation_sets.get_config("d,templates=filip,ensemble=similarities,sets=pets+dtd")
    assert list(c.evaluators.zero_shot) == ["dtd", "pets"]
    assert c.evaluators.zero_shot.pets.templates == "filip"
    assert c.evaluators.zero_shot.dtd.ensemble == "similarities"


@pytest.mark.parametrize(
    ("arg", "words"),
    [
        (None, "takes FOLDER"),
        ("d,group=clip", "takes FOLDER"),
        ("d,split=test", "takes FOLDER"),
        ("d,layout=tar", "choose one of webdataset, image_folder, zip, tfds"),
        ("d,sets=pets+stl10", "'stl10' is none of cifar10, "),
    ],
)
def test_wrong_settings(arg, words):
    with pytest.raises(ValueError, match=words):
        evaluation_sets.get_config(arg)


def test_no_set_is_called_as_the_mean_of_all(tmp_path):
    c = base.get_config()
    c.evaluators.zero_shot[AVERAGE] = evaluators.zero_shot(
        "class_scenes", evaluators.class_scenes()
    )
    with pytest.raises(UsageError) as raised:
        build.make_evaluators(c, tmp_path)
    assert "zero_shot.average: the mean over sets is called so" in str(raised.value)
