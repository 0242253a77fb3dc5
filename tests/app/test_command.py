"""The command `cbtalk app` as a user meets it."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cbtalk.batch import BatchOptions
from cbtalk.cli import main
from tests.app.conftest import free_port


@pytest.fixture
def _gradio() -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (extra app)")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["app", *words]) == 2
    return capsys.readouterr().err


def test_without_gradio_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == "gradio" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert said(capsys) == "error: the page needs gradio: pip install 'cbtalk[app]'\n"


@pytest.mark.usefixtures("_gradio")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--max-frames", "0"], "error: --max-frames 0: must be 1 or more"),
        (["--threads", "0"], "error: --threads 0: must be 1 or more"),
        (["--weights", "nowhere.safetensors"], "error: nowhere.safetensors: "),
        (["--output", "nowhere"], "error: nowhere: no such folder"),
        (["--port", "70000"], "error: --port 70000: must be 1 to 65535"),
        (["--host", "203.0.113.7"], "error: --host 203.0.113.7 --port 7860: "),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, *words)
    assert told.startswith(line) and told.count("\n") == 1


@pytest.mark.usefixtures("_gradio")
def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        told = said(capsys, "--port", port)
    assert told.startswith(f"error: --host 127.0.0.1 --port {port}: ") and told.endswith("; choose another one\n")


@pytest.mark.slow
@pytest.mark.usefixtures("_gradio")
def test_the_environment_of_the_page_ends_with_it(weights: Path) -> None:
    from cbtalk.app import AppOptions, Limits, served

    names = ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "no_proxy", "NO_PROXY")
    before = [os.environ.get(name) for name in names]
    limits = Limits(upload=1, frames=50, megapixels=1, jobs=3)
    with served(AppOptions(BatchOptions(weights=str(weights), workers=1, threads=1), limits, port=free_port())):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert [os.environ.get(name) for name in names] == before


@pytest.mark.slow
@pytest.mark.usefixtures("_gradio")
@pytest.mark.parametrize("proxy", [{}, {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}])
def test_an_interruption_ends_the_page_and_removes_what_was_uploaded(
    proxy: dict[str, str], tmp_path: Path, weights: Path
) -> None:
    port = str(free_port())
    command = [sys.executable, "-m", "cbtalk", "app", "--port", port, "--weights", str(weights)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), **proxy}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as page:
        assert page.stdout is not None
        assert page.stdout.readline() == f"http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        assert [path for path in tmp_path.iterdir() if path.name.startswith("cbtalk-app-")]
        page.send_signal(signal.SIGINT)
        _, told = page.communicate(timeout=60)
    assert (page.returncode, told) == (0, "SIGINT: the page ends\n")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("cbtalk-app-")]
