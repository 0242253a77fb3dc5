"""Which implementation of an op runs: the first one that has no reason against it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from cbtalk.errors import BackendError

_auto = "auto"


def choose(requested: str, candidates: Sequence[tuple[str, str | None]]) -> str:
    """The name of the backend that runs.

    Args:
        requested: a backend's name, or "auto" for the first candidate without a reason against it.
        candidates: (name, reason) in order of preference; the reason is None where the backend can run.

    Raises:
        BackendError: the backend asked for by name cannot run, or there is none of that name.
    """
    wanted = _auto if requested == "auto" else requested
    for name, reason in candidates:
        if wanted == name and reason is not None:
            raise BackendError(f"backend {name!r} cannot run here: {reason}")
        if wanted == name or (wanted == "auto" and reason is None):
            return name
    known = ", ".join(name for name, _ in candidates)
    raise BackendError(f"no backend {wanted!r} for this op; known: auto, {known}")


def in_order(tensor: Tensor, *, cpp: str | None, cuda: str | None, triton: str | None) -> list[tuple[str, str | None]]:
    """The candidates for `choose`, each with the reason against it, in the order for the tensor's device.

    The order on a GPU is a guess until it is measured there. On the CPU, Triton runs in its interpreter, for tests.
    """
    if tensor.device.type == "cpu":
        return [("cpp", cpp), ("reference", None), ("cuda", cuda), ("triton", triton)]
    return [("cuda", cuda), ("triton", triton), ("reference", None), ("cpp", cpp)]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Makes every op called with backend="auto" use one backend, in all threads: for comparisons and tests."""
    global _auto
    before, _auto = _auto, name
    try:
        yield
    finally:
        _auto = before
