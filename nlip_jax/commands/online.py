"""Noise estimated from what training sees: where a run keeps losses, what it makes of them."""

import numpy as np

from nlip_jax.commands.session import Session
from nlip_jax.train.online_losses import OnlineLosses
from nlip_jax.train.recent_losses import recent_losses

FOLDER = "online_losses"  # in the workdir


def keep_losses(run: Session, *, resume_step: int) -> OnlineLosses | None:
    """What takes down the losses that training sees; None where no estimate is made of them."""
    episodes = range(1, len(run.method.refresh_steps) + 1)
    windows = [window for window in map(run.method.loss_window, episodes) if window]
    if not windows:
        return None
    return OnlineLosses(
        run.workdir / FOLDER,
        windows=windows,
        num_ids=run.members.num_ids,
        resume_step=resume_step,
    )


def make_recent_losses(run: Session, name: str, *, episode: int, key: str) -> np.ndarray:
    """A column of the mean loss of each example in the steps that an episode's refresh looks at.

    Args:
      run: whose method it is.
      name: of the column.
      episode: that begins.
      key: of the columns it makes.

    Returns:
      `[n]` float32.
    """
    last = run.method.version(name, episode - 1)
    return recent_losses(
        run.column(name, episode, key=key),
        directory=run.workdir / FOLDER,
        window=run.method.loss_window(episode),
        before=run.column(name, last).read() if last else None,
        members=run.members,
    )
