"""A worker that renders nothing: what becomes of a job is told by the name of its source."""

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from cbtalk.batch import worker
from cbtalk.batch.job import Job
from cbtalk.batch.worker import Setting
from cbtalk.errors import InputError, SystemFailure
from cbtalk.render import RenderOptions
from cbtalk.render.report import Report


def serve(connection: Connection, setting: Setting) -> None:
    """`cbtalk.batch.worker.serve` with `render` in the place of the model."""
    vars(worker)["render_video"] = render
    worker.serve(connection, setting)


class Worker(worker.Worker):
    """`cbtalk.batch.worker.Worker` with `render` in the place of the model, for actors."""

    def __init__(self, setting: Setting) -> None:
        vars(worker)["render_video"] = render
        super().__init__(setting)


def serve_dying(connection: Connection, setting: Setting) -> None:
    """A worker that is killed before it is ready, but for the first of a batch."""
    try:
        (setting.folder / "first").touch(exist_ok=False)
    except FileExistsError:
        os.kill(os.getpid(), signal.SIGKILL)
    serve(connection, setting)


poisoned = False


def _poison() -> None:
    global poisoned
    poisoned = True
    raise ZeroDivisionError("the process is spoilt")


def render(source: Path, driving: Path, output: Path, options: RenderOptions, *, cache: object) -> Report:
    """Writes a file, and a line to the log of calls beside it, unless the source's name says otherwise."""
    with (output.parent / "calls").open("a", errors="surrogateescape") as log:
        log.write(f"{output.name}\n")
    attempts = (output.parent / "calls").read_text(errors="surrogateescape").split().count(output.name)
    if poisoned:
        raise ZeroDivisionError("in a spoilt process")
    acts: dict[str, Callable[[], None]] = {
        "wrong": lambda: _raise(InputError(f"{source}: is\nwrong")),
        "full": lambda: _raise(SystemFailure("no room")),
        "bug": lambda: _raise(ZeroDivisionError("oh")),
        "poison": _poison,
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "once": lambda: os.kill(os.getpid(), signal.SIGKILL) if attempts == 1 else None,
        "slow": lambda: time.sleep(1.0),
        "endless": lambda: time.sleep(1000.0),
    }
    acts.get(source.stem, lambda: None)()
    output.write_bytes(source.read_bytes() + driving.read_bytes())
    return Report(output, frames=3, seconds=0.5, notes=[], file_warnings=["cut off"] if source.stem == "warned" else [])


def _raise(failure: Exception) -> None:
    raise failure


def job(folder: Path, name: str, number: int = 0) -> Job:
    """A job whose source has this name; its files are made."""
    source, driving = folder / f"{name}.png", folder / "clip.mp4"
    for path in (source, driving):
        if not path.exists():
            path.write_bytes(os.fsencode(path.name))
    return Job(source, driving, folder / "out" / f"{name}{number}.mp4", (), RenderOptions(), number or None)
