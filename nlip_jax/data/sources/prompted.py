"""A source whose captions stand in a prompt."""

from dataclasses import dataclass

from nlip_jax.data.source import Source, SourceView


@dataclass(frozen=True)
class Prompt:
    """What stands around a caption, with a space between.

    Attributes:
      prefix: in front of it; empty for nothing.
      suffix: behind it; empty for nothing.
    """

    prefix: str = ""
    suffix: str = ""

    def __call__(self, caption: str) -> str:
        """The caption in the prompt."""
        return " ".join(part for part in (self.prefix, caption, self.suffix) if part)


NO_PROMPT = Prompt()


class Prompted(SourceView):
    """A source with every caption in a prompt.

    Args:
      source: any source.
      prompt: of its captions.
    """

    def __init__(self, source: Source, prompt: Prompt) -> None:
        super().__init__(source)
        self.prompt = prompt

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; covers the prompt."""
        return f"{self.source.fingerprint}{repr(self.prompt).encode().hex()}"

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption of an example, in the prompt."""
        return self.prompt(self.source.caption(example_id, epoch))
