"""What describes a data set in a config is read whole: nothing is missing, nothing is ignored."""

import pytest
from ml_collections import ConfigDict
from tars import sample, write_tar

from configs import base, evaluators
from nlip_jax import build
from nlip_jax.build.blocks import FIELDS, take_block
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
