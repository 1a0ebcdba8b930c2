"""The account of an audit: which stages there were, how far they came, how long they took."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from nlip_jax import phases
from nlip_jax.report.audit_records import Stage
from nlip_jax.train import stop


@dataclass
class Progress:
    """How far a stage came; what is in it is written down when it ends.

    Attributes:
      done: in words.
      finished: whether nothing of it is left.
    """

    done: str = ""
    finished: bool = True


@dataclass(frozen=True)
class Work:
    """Takes down stages.

    Attributes:
      stages: so far.
    """

    stages: list[Stage] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Times what is done inside; says how far it came unless it raises.

        Args:
          name: for people, and with _ in place of spaces as a phase.

        Raises:
          Preempted: the audit was asked to stop before.
        """
        stop.check()
        phases.enter(f"audit_{name.replace(' ', '_')}")
        progress, begun = Progress(), time.monotonic()
        yield progress
        self.stages.append(
            Stage(
                name=name,
                done=progress.done,
                finished=progress.finished,
                seconds=time.monotonic() - begun,
            )
        )

    @property
    def unfinished(self) -> list[Stage]:
        """Stages of which something is left."""
        return [stage for stage in self.stages if not stage.finished]
