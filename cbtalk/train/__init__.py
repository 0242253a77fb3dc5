"""Training: data, losses, the trainer and its checkpoints."""

from cbtalk.train.training import run

__all__ = ["run"]
