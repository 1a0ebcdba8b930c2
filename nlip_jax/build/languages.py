"""Sets in several languages: one spec, in which "{language}" stands where they differ."""

from ml_collections import ConfigDict

from nlip_jax.build.blocks import take_block
from nlip_jax.errors import UsageError

SLOT = "{language}"


def by_language(spec: ConfigDict, *, field: str) -> dict[str, ConfigDict]:
    """The specs of the languages that a spec names, in their order.

    Args:
      spec: has `languages`, `source` and the block of that name, with `SLOT` in some of its texts.
      field: dotted name of the spec in the config.

    Raises:
      UsageError: the languages are no names, one is there twice, or the block has no `SLOT`.
    """
    languages = spec.languages
    if isinstance(languages, str) or not all(isinstance(one, str) and one for one in languages):
        raise UsageError(f"config.{field}.languages={languages!r}: list names, as ('en', 'de')")
    if len(set(languages)) < len(languages):
        raise UsageError(f"config.{field}.languages={tuple(languages)}: name each once")
    block = take_block(spec, field=field)
    places = [name for name, value in block.items() if isinstance(value, str) and SLOT in value]
    if languages and not places:
        raise UsageError(
            f"config.{field}.languages={tuple(languages)}: write {SLOT} where config.{field}."
            f"{spec.source} differs, such as shards='test.{SLOT}.txt'"
        )
    found = {}
    for language in languages:
        one = ConfigDict({"source": spec.source, spec.source: ConfigDict(block.to_dict())})
        for name in places:
            one[spec.source][name] = block[name].replace(SLOT, language)
        found[language] = one
    return found
