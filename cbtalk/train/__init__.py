"""Training: data, losses, the trainer and its checkpoints."""

from cbtalk.train.loop import run

__all__ = ["run"]
