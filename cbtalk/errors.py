"""Errors of the user and refusals of the machine, as exceptions with one clear line each."""


class CbtalkError(Exception):
    """Base of every error that cbtalk raises on purpose; the message names the file and the remedy."""

    exit_code = 2


class InputError(CbtalkError):
    """An image, video, motion file or option that cannot be used."""


class WeightsError(CbtalkError):
    """Weights that are missing, damaged, or belong to another model."""


class ConfigError(CbtalkError):
    """A configuration that names unknown keys or contradicts itself."""


class OutputError(CbtalkError):
    """An output that cannot be written where the user asked for it."""


class TransferError(CbtalkError):
    """A file behind a URL that could not be read or written: its server does not answer, or fails."""

    exit_code = 1


class SystemFailure(CbtalkError):
    """The machine failed, not the user: the disk is full, or a file cannot be flushed."""

    exit_code = 1


class BackendError(CbtalkError):
    """A backend asked for by name that cannot run here; the message is the reason."""


class Interruption(CbtalkError):
    """Work that a signal ended, saved so that it can go on."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class LostProcess(CbtalkError):
    """A training run that cannot go on: another of its processes ended."""

    exit_code = 1


class AlreadyTold(CbtalkError):
    """The end of one process of a training run for a reason that another one tells."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self.exit_code = getattr(reason, "exit_code", 1)


class TrainingError(CbtalkError):
    """A training run that cannot go on: its losses stay not finite."""

    exit_code = 1
