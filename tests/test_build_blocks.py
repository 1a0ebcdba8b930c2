"""What describes a data set in a config is read whole: nothing is missing, nothing is ignored."""

import pytest
from ml_collections import ConfigDict
from tars import sample, write_tar

from configs import base, evaluators
from nlip_jax import build
from nlip_jax.build.blocks import FIELDS, check_evaluator, take_block
from nlip_jax.build.sources import indexed_sets
from nlip_jax.errors import UsageError


def spec(source, change):
    block = getattr(base, f"{source}_source")()
    change(block)
    return ConfigDict({"source": source, source: block})


def test_the_table_is_that_of_the_defaults():
    data = base.get_config().data
    for source, fields in FIELDS.items():
        assert set(data[source]) == set(fields)
        block = take_block(spec(source, lambda block: None), field="data")
        assert block.to_dict() == data[source].to_dict()


@pytest.mark.parametrize("source", FIELDS)
def test_misspelt_and_missing_fields(source):
    name = FIELDS[source][0]
    misspelt = spec(source, lambda block: block.update({f"{name}s": 1}))
    words = f"config.data.x.{source}.{name}s; did you mean {name}"
    with pytest.raises(UsageError, match=words):
        take_block(misspelt, field="data.x")
    with pytest.raises(UsageError, match=rf"{source} lacks {name}: .*{source}_source"):
        take_block(spec(source, lambda block: delattr(block, name)), field="data.x")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (base.tar_source(), "mixture.a is no part of a mixture"),
        (3, "mixture.a is no part of a mixture"),
        (evaluators.retrieval("tar", base.tar_source()), "mixture.a is no part of a mixture"),
        (base.mixture_part("synthetic", base.synthetic_source(), weight="2"), "weight='2'"),
        (base.mixture_part("mixture", ConfigDict(), weight=1.0), "cannot be part of a mixture"),
        (base.mixture_part("hdf5", ConfigDict(), weight=1.0), "choose one of synthetic, tar"),
    ],
)
def test_what_is_no_part_of_a_mixture(tmp_path, part, words):
    config = base.get_config()
    config.data.source = "mixture"
    config.data.mixture = ConfigDict({"a": part})
    with pytest.raises(UsageError, match=words):
        build.open_training_source(config, tmp_path)


def test_two_sets_do_not_share_an_index(tmp_path):
    config = base.get_config()
    config.data.source = "mixture"
    for name in ("a", "b"):
        block = base.tar_source()
        block.shards = write_tar(tmp_path / f"{name}.tar", sample("k", ["x"]))
        block.index = str(tmp_path / "index")
        config.data.mixture[name] = base.mixture_part("tar", block, weight=1.0)
    with pytest.raises(UsageError, match=r"mixture\.b\.tar\.index=.*another set"):
        indexed_sets(config, tmp_path)


def test_a_damaged_note_of_a_vocabulary(tmp_path):
    config = base.get_config()
    config.data.synthetic.num_examples = 100
    config.tokenizer.vocab_size = 300
    source = build.open_training_source(config, tmp_path)
    build.open_tokenizer(config, source=source, workdir=tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"fingerpr')
    with pytest.raises(UsageError, match="was not trained here"):
        build.open_tokenizer(config, source=source, workdir=tmp_path)


LABELLED = evaluators.labelled_set("class_scenes", evaluators.class_scenes())
SPECS = {
    "zero_shot": lambda: evaluators.zero_shot("class_scenes", evaluators.class_scenes()),
    "retrieval": lambda: evaluators.retrieval("tar", base.tar_source()),
    "linear_probe": lambda: evaluators.linear_probe(LABELLED, LABELLED),
    "few_shot": lambda: evaluators.few_shot(LABELLED, LABELLED),
    "knn": lambda: evaluators.knn(LABELLED, LABELLED),
    "clustering": lambda: evaluators.clustering("class_scenes", evaluators.class_scenes()),
    "geometry": lambda: evaluators.geometry("tar", base.tar_source()),
    "caption": lambda: evaluators.caption("tar", base.tar_source()),
    "pair_choice": lambda: evaluators.pair_choice("a.json"),
    "judgement": lambda: evaluators.judgement("a.json", sts="b.csv"),
}


@pytest.mark.parametrize("kind", evaluators.KINDS)
def test_the_specs_of_the_configs_are_the_specs_that_are_read(kind):
    check_evaluator(SPECS[kind](), kind=kind, field="evaluators.x.y")


@pytest.mark.parametrize("kind", evaluators.KINDS)
def test_a_misspelt_and_a_missing_field_of_an_evaluator(kind):
    spec = ConfigDict(SPECS[kind]().to_dict())
    name = "prompts" if "prompts" in spec else [n for n in spec if n != spec.get("source")][-1]
    spec[f"{name}s_"] = 1
    with pytest.raises(UsageError, match=rf"evaluators\.x\.y\.{name}s_; did you mean {name}"):
        check_evaluator(spec, kind=kind, field="evaluators.x.y")
    del spec[f"{name}s_"], spec[name]
    words = "y.tar; it has source" if name == "source" else rf"y lacks {name}.*evaluators\.{kind}"
    with pytest.raises(UsageError, match=words):
        check_evaluator(spec, kind=kind, field="evaluators.x.y")


@pytest.mark.parametrize(
    ("kind", "place", "words"),
    [
        ("linear_probe", "lbfgs", r"y\.lbfgs\.odd; it has regularisation"),
        ("linear_probe", "train", r"y\.train\.odd; it has source, prompts"),
        ("retrieval", "text_to_image", r"y\.text_to_image\.odd; it has prefix, suffix"),
    ],
)
def test_blocks_inside_of_an_evaluator_are_read_too(kind, place, words):
    spec = ConfigDict(SPECS[kind]().to_dict())
    spec[place].odd = 1
    with pytest.raises(UsageError, match=words):
        check_evaluator(spec, kind=kind, field="evaluators.x.y")
    with spec.ignore_type():
        spec[place] = 3
    with pytest.raises(UsageError, match=rf"y\.{place}=3 is no block of fields"):
        check_evaluator(spec, kind=kind, field="evaluators.x.y")
