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

from cbtalk.cli import main


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
def test_an_interruption_ends_the_page_and_removes_what_was_uploaded(tmp_path: Path, weights: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "cbtalk", "app", "--port", port, "--weights", str(weights)]
    with subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as page:
        assert page.stdout is not None
        assert page.stdout.readline() == f"http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        assert [path for path in tmp_path.iterdir() if path.name.startswith("cbtalk-app-")]
        page.send_signal(signal.SIGINT)
        _, told = page.communicate(timeout=60)
    assert (page.returncode, told) == (0, "SIGINT: the page ends\n")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("cbtalk-app-")]
