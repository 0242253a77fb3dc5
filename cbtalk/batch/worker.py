"""A worker of a batch: a process that renders one job after another and keeps what the next one can use."""

import contextlib
import os
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from cbtalk.allocator import keep_freed_memory, return_freed_memory
from cbtalk.batch.job import Job
from cbtalk.batch.ledger import worker_lock
from cbtalk.batch.local_files import LocalFiles
from cbtalk.errors import CbtalkError, SystemFailure, TransferError
from cbtalk.render.cache import RenderCache
from cbtalk.render.video import model_cache, render_video
from cbtalk.worker_process import as_worker

MOTIONS, DOWNLOADS = ".motions", ".downloads"  # folders of motion files and of copies from URLs, in that of the batch

_JOBS_BETWEEN_RETURNS = 20  # of freed memory to the system


@dataclass(frozen=True)
class Setting:
    """Settings of a worker, told once.

    folder: of the batch; number: of the worker; weights, dtype: for `cbtalk.load`; gpu: the number of its GPU, None for
    the CPU; threads: of torch on the CPU; motion_bytes, download_bytes: what motions, which all workers share, and its
    own copies of files behind URLs may take on the disk.
    """

    folder: Path
    number: int
    weights: str
    dtype: torch.dtype
    gpu: int | None
    threads: int
    motion_bytes: int
    download_bytes: int


class Outcome(NamedTuple):
    """The end of a job.

    kind: "done", "failed" by what the user gave, "crashed" by cbtalk, "machine" where the machine failed (a full disk),
    "transfer" where the server of a URL did.
    """

    kind: Literal["done", "failed", "crashed", "machine", "transfer"]
    error: str | None = None
    frames: int = 0
    seconds: float = 0.0
    bytes: int = 0  # of the output
    warnings: tuple[str, ...] = ()


class Worker:
    """Renders jobs with one model, and keeps what the next one can use."""

    def __init__(self, setting: Setting) -> None:
        """Raises WeightsError for weights that cannot be used, SystemFailure for a machine that cannot be used."""
        self._jobs = 0
        self._closing = contextlib.ExitStack()
        shared = setting.folder.is_dir()  # other machines of a cluster may not have it
        if shared:
            # A job without its batch would be begun again by the next one: so a lock tells that there is a worker.
            self._lock = worker_lock(setting.folder)
            home = setting.folder
        else:
            home = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="cbtalk-")))
        torch.set_num_threads(setting.threads)
        keep_freed_memory()
        self._cache = _model_cache(setting, home / MOTIONS)
        self._files = LocalFiles(home / DOWNLOADS / str(setting.number), setting.download_bytes, shared=shared)

    def ready(self) -> None:
        """Returns once the worker is there."""

    def close(self) -> None:
        """Removes what it keeps on a machine without the folder of the batch."""
        self._closing.close()

    def render(self, job: Job) -> Outcome:
        """Renders a job; whatever goes wrong is told, in one line."""
        outcome = self._render(job)
        self._jobs += 1
        if self._jobs % _JOBS_BETWEEN_RETURNS == 0:
            return_freed_memory()
        return outcome

    def _render(self, job: Job) -> Outcome:
        try:
            with self._files.of(job) as local:
                report = render_video(local.source, local.driving, local.output, local.options, cache=self._cache)
                size = local.output.stat().st_size
        except SystemFailure as failure:
            return Outcome("machine", self._line(failure))
        except TransferError as failure:
            return Outcome("transfer", self._line(failure))
        except CbtalkError as failure:
            return Outcome("failed", self._line(failure))
        except Exception as failure:
            traceback.print_exc()
            return Outcome("crashed", f"internal: {type(failure).__name__}: {self._line(failure)}")
        warnings = tuple(self._files.named(warning) for warning in report.warnings)
        return Outcome("done", None, report.frames, report.seconds, size, warnings)

    def _line(self, failure: Exception) -> str:
        return self._files.named(_one_line(failure))


def serve(connection: Connection, setting: Setting) -> None:
    """Answers every job that comes through `connection` with an Outcome, until the other side closes it.

    The first answer says that the worker is there: None, or the CbtalkError for which it cannot be.
    """
    with as_worker(), contextlib.suppress(EOFError, BrokenPipeError):
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if setting.gpu is None else str(setting.gpu)
        try:
            worker = Worker(setting)
        except CbtalkError as failure:
            connection.send(failure)
            return
        connection.send(None)
        while True:
            connection.send(worker.render(connection.recv()))


def _model_cache(setting: Setting, motions: Path) -> RenderCache:
    """The cache of a worker's renders, with the model loaded."""
    device = "cpu" if setting.gpu is None else "cuda"
    cache = model_cache(setting.weights, device, setting.dtype, motions, setting.motion_bytes)
    try:
        cache.talker  # noqa: B018 - loads it
    except RuntimeError as failure:  # of CUDA
        raise SystemFailure(f"a worker cannot be started: {_one_line(failure)}") from failure
    return cache


def _one_line(failure: Exception) -> str:
    return " ".join(str(failure).split())
