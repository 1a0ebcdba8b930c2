"""The arguments of configs/flickr8k.py."""

import pytest

from configs import flickr8k


@pytest.mark.parametrize("argument", [None, "a/b", "a/b,size=S/16", "a/b,model=four_part"])
def test_what_it_takes(argument):
    config = flickr8k.get_config(argument)
    whole = "four_part" in (argument or "")
    assert config.nlip.model == ("four_part" if whole else "dual_encoder")
    assert config.data.tar.shards == ("a/b/" if argument else "data/flickr8k/") + "train/*.tar"
    assert ("flickr8k" in config.evaluators.caption) == whole


@pytest.mark.parametrize("argument", ["a,size=L", "a,kind=x", "a,size", "a,model=clip"])
def test_what_it_refuses(argument):
    with pytest.raises(ValueError, match="takes FOLDER"):
        flickr8k.get_config(argument)
