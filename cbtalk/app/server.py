"""The page, served on this machine and to it alone unless another address is asked for."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from cbtalk.app.limits import Limits
from cbtalk.app.studio import Studio
from cbtalk.app.work_folder import work_folder
from cbtalk.batch import BatchOptions
from cbtalk.errors import ConfigError, OutputError
from cbtalk.precision import float32_convolutions

WAITING = 32  # events of all visitors that may wait in a queue

# Gradio neither counts its users nor looks for newer versions then, and its library for models fetches nothing.
STAY_AT_HOME = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
PAST_A_PROXY = ("127.0.0.1", "localhost", "::1")  # Gradio asks for its own page, which no proxy can reach


@dataclass(frozen=True)
class AppOptions:
    """The page's address, model and limits.

    weights: a name or file for `cbtalk.load`, on `device` in `dtype`. batches: options of the batches that are begun
    there. output: the folder that keeps them; None: one that is removed with all uploads when the page ends.
    """

    batches: BatchOptions
    limits: Limits
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    host: str = "127.0.0.1"
    port: int = 7860
    output: Path | None = None


@contextmanager
def served(options: AppOptions) -> Iterator[str]:
    """Serves the page while the block runs, and gives its address.

    Raises WeightsError for weights that cannot be used, ConfigError where the address cannot be taken, OutputError
    where `output` is no folder.
    """
    if options.output is not None and not options.output.is_dir():
        raise OutputError(f"{options.output}: no such folder; make it first")
    _check_free(options.host, options.port)
    with work_folder() as folder, _environment(folder / "uploads"), float32_convolutions():
        from cbtalk.app.page import STYLE, THEME, page  # imports Gradio, which reads the environment

        studio = Studio(options.batches.weights, options.device, options.dtype, options.limits, folder)
        blocks = page(studio, options.batches, options.output)
        blocks.queue(max_size=WAITING, api_open=False)
        _, address, _ = blocks.launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=options.limits.upload * 10**6,
            allowed_paths=[] if options.output is None else [str(options.output.resolve())],
            theme=THEME,
            css=STYLE,
            footer_links=[],
            share=False,
            inbrowser=False,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            num_workers=1,
            prevent_thread_lock=True,
            quiet=True,
        )
        try:
            yield address
        finally:
            blocks.close(verbose=False)
            studio.close()


@contextmanager
def _environment(uploads: Path) -> Iterator[None]:
    """The environment that Gradio is to find, while the block runs."""
    direct = ",".join([*filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY")]), *PAST_A_PROXY])
    settings = {**STAY_AT_HOME, "GRADIO_TEMP_DIR": str(uploads), "no_proxy": direct, "NO_PROXY": direct}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _check_free(host: str, port: int) -> None:
    """Raise ConfigError where nothing can listen there."""
    if not 0 < port < 1 << 16:
        raise ConfigError(f"--port {port}: must be 1 to {(1 << 16) - 1}")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
    except OSError as failure:
        raise ConfigError(f"--host {host} --port {port}: {failure.strerror}; choose another one") from failure
