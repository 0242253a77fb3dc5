"""Training: data, losses, the trainer and its checkpoints."""

from cbtalk.train.training import train_talker

__all__ = ["train_talker"]
