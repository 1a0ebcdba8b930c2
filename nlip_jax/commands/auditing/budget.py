"""How the time of an audit is shared out among its stages."""

import time
from dataclasses import dataclass

# Shares of the time; what a stage leaves is for those after it.
READING = 0.35  # of captions and names, together with what each of them costs later
TRAINING, MORE_TRAINING = 0.55, 0.75  # when training has to end, and when if the rest is short
LOOKING = 0.5  # seconds of the pass over pairs for each second that training on as many takes
PROPOSING = 0.15  # for captions
LEAST = 0.1  # for the pass over pairs, however little is left
# Seconds of the stages after embedding: for each listed pair (`benchmark audit` measures them), and
# whatever there is.
AFTER_EACH, AFTER_ALL = 2.5e-5, 15.0


@dataclass(frozen=True)
class Budget:
    """The time that an audit may take.

    Attributes:
      begun: `time.monotonic` at its start.
      seconds: that it may take.
    """

    begun: float
    seconds: float

    def at(self, share: float) -> float:
        """The moment when this share of the time is over, by `time.monotonic`."""
        return self.begun + share * self.seconds

    def reading_ends(self, num_read: int) -> bool:
        """Whether no more captions should be read: each that is costs time later, too."""
        return time.monotonic() + AFTER_EACH * num_read >= self.at(READING)

    def training_ends(self, *, num_listed: int, num_pairs: int, pair_seconds: float) -> float:
        """The moment when the training of a model has to end.

        Args:
          num_listed: captions that were read.
          num_pairs: that are to be looked at later.
          pair_seconds: that training takes for one; infinite while that is not known.
        """
        after = AFTER_ALL + AFTER_EACH * num_listed + PROPOSING * self.seconds
        rest = after + LOOKING * pair_seconds * num_pairs
        later = min(max(self.at(1) - rest, self.at(TRAINING)), self.at(MORE_TRAINING))
        return min(later, max(self.at(1) - after, self.begun + LEAST * self.seconds))

    def pass_ends(self, *, num_listed: int, proposes: bool) -> float:
        """The moment when the pass over pairs has to end."""
        after = AFTER_ALL + AFTER_EACH * num_listed + proposes * PROPOSING * self.seconds
        return max(self.at(1) - after, time.monotonic() + LEAST * self.seconds)

    def proposing_ends(self, *, num_listed: int) -> float:
        """The moment when the making of captions has to end."""
        return self.at(1) - AFTER_ALL - AFTER_EACH * num_listed


def is_over(moment: float) -> bool:
    """Whether a moment, by `time.monotonic`, has come."""
    return time.monotonic() >= moment
