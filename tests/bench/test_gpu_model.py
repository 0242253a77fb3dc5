"""The whole model's GPU benchmark, on the CPU with stand-ins for the clocks."""

import time
import warnings
from typing import Any

import pytest
import torch

from bench import gpu_model
from bench.case import Thunk
from bench.gpu_model import BATCHES, MODES, batch_of, launches, line, measure_model, waits
from bench.timing import Timing


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, str]]:
    """The clocks call once, and the work is next to none; its dtype and the precision of convolutions at each call."""
    seen: list[tuple[torch.dtype, str]] = []

    def once(thunk: Thunk, replays: int) -> Timing:
        result: Any = thunk()
        seen.append((result.dtype, torch.backends.cudnn.conv.fp32_precision))  # type: ignore[attr-defined]
        return Timing(0.5, 0.5, 0.5, 1)

    monkeypatch.setattr(gpu_model, "BATCHES", (1, 2))
    monkeypatch.setattr(gpu_model, "batch_of", lambda preset, mode, *_: lambda: torch.ones(2, dtype=mode.dtype) * 2)
    monkeypatch.setattr(gpu_model, "measure", once)
    monkeypatch.setattr(gpu_model, "measure_eager", once)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    return seen


def test_each_batch_and_mode_is_timed_launched_and_watched(timed: list[Any]) -> None:
    records = list(measure_model("mini", "cpu", time.monotonic() + 60))
    assert [record.get("fail") for record in records] == [None] * len(records)
    assert [(record["batch"], record["mode"]) for record in records] == [(b, m.name) for b in (2, 1) for m in MODES]
    assert all({"eager", "graph", "waits", "launches", "profile"} <= set(record) for record in records)
    assert set(timed) == {(mode.dtype, mode.convolutions) for mode in MODES}
    assert "4.0 frames/s" in line(records[0])


def test_a_mode_that_breaks_costs_no_other(timed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thunk: Thunk, replays: int) -> Timing:
        raise RuntimeError("no capture")

    monkeypatch.setattr(gpu_model, "measure", refused)
    records = list(measure_model("mini", "cpu", time.monotonic() + 60))
    assert [record["fail"] for record in records] == ["RuntimeError: no capture"] * 2 * len(MODES)
    assert all("eager" in record for record in records) and "FAIL: RuntimeError" in line(records[0])


def test_nothing_is_begun_when_the_time_is_over(timed: list[Any]) -> None:
    assert list(measure_model("mini", "cpu", time.monotonic() - 1)) == [] and timed == []


def test_a_wait_is_noticed_and_the_setting_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work() -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=2)
        warnings.warn("something else", stacklevel=2)

    assert waits(work) == ["called a synchronizing CUDA operation"] and modes == ["warn", "default"]


def test_the_batches_are_those_of_the_goals_and_bytes_come_out() -> None:
    assert BATCHES == (1, 4, 16)
    images: Any = batch_of("mini", MODES[2], 2, "cpu")()
    assert images.dtype == torch.uint8 and images.shape[0] == 2
    assert launches(lambda: images.float())["launches"] == 0  # none on a GPU
