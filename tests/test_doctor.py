import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cbtalk import _native, _triton, doctor
from cbtalk.ops.examples import EXAMPLES, named


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = doctor.diagnose()
    return code, capsys.readouterr().out


def test_a_healthy_installation(capsys: pytest.CaptureFixture[str]) -> None:
    if reason := _native.why_not_cpp():
        pytest.skip(reason)
    code, out = report(capsys)
    assert code == 0
    assert f"torch                {torch.__version__}" in out
    assert out.count("cpp ok") == len(EXAMPLES)
    assert f"level in use         {_native.cpu_level()}" in out


def test_the_build_facts_may_be_absent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := _native.why_not_cpp():
        pytest.skip(reason)
    monkeypatch.setitem(sys.modules, "cbtalk._build_info", None)
    code, out = report(capsys)
    assert code == 0
    assert "build facts          off: " in out


def test_an_absent_library_is_off_for_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_native, "_cpu_reason", "nobody compiled it")
    code, out = report(capsys)
    assert code == 1
    assert out.count("nobody compiled it") == 1  # of the backends, and not again for each op
    assert out.count("cpp off") == len(EXAMPLES) and f" from {Path(_native.__file__).parent}" in out


def test_gpu_backends_that_are_off_say_why_and_are_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := _native.why_not_cpp():
        pytest.skip(reason)
    monkeypatch.setattr(_native, "_cuda_reason", "there was no nvcc")
    monkeypatch.setattr(_triton, "_reason", "triton is not installed")
    code, out = report(capsys)
    assert code == 0
    assert "cuda                 off: there was no nvcc" in out
    assert "triton               off: triton is not installed" in out


@pytest.mark.parametrize("fault", [lambda y: y * 1.001, lambda y: y * torch.nan, lambda y: y.detach() * 1.0])
def test_a_kernel_that_computes_something_else_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: object
) -> None:
    sound = named("flow_warp")

    def broken(*inputs: torch.Tensor, backend: str) -> torch.Tensor:
        return fault(sound.op(*inputs, backend="reference"))  # type: ignore[operator]

    monkeypatch.setattr(doctor, "EXAMPLES", (replace(sound, op=broken),))
    code, out = report(capsys)
    assert code == 1
    assert "cpp WRONG: output" in out or "cpp FAILED" in out
