"""Runs that are interrupted, that meet a full disk, dead processes or losses that are not finite."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cbtalk import interruptions
from cbtalk.cli import main
from cbtalk.errors import Interruption, SystemFailure, TrainingError
from cbtalk.model.checkpoint import read_notes
from cbtalk.train import logs, state, train_talker
from cbtalk.train.data import PairLoader
from cbtalk.train.state import checkpoints, load_checkpoint
from cbtalk.train.trainer import Trainer
from tests.helpers.tiers import slow
from tests.helpers.training import MakeConfig, saved

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def signals_end_the_process() -> Iterator[None]:
    """Also where the tests run in the background or under nohup, which let SIGINT or SIGHUP be ignored."""
    handlers: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Lets something happen at the beginning of a step, by the number of steps before it."""
    step = Trainer.train_step
    events: dict[int, Callable[[], object]] = {}

    def train_step(self: Trainer) -> dict[str, Tensor]:
        events.pop(self.step, lambda: None)()
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    return events.__setitem__


def send(number: int, times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), number)


def kill_children(*, at_once: bool) -> None:
    for child in multiprocessing.active_children():
        child.kill()
        if at_once:
            multiprocessing.connection.wait([child.sentinel])  # does not take SIGCHLD's reason away, as a join would
            time.sleep(0.1)


@pytest.mark.parametrize("number", [SIGNALS[0], *slow(*SIGNALS[1:])])
def test_one_signal_ends_the_run_after_its_step_with_a_checkpoint(
    make_config: MakeConfig, tmp_path: Path, at_step: Any, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    at_step(1, lambda: send(number))
    before = signal.getsignal(number)
    assert main(["train", str(make_config())]) == 128 + number
    out, err = capsys.readouterr()
    assert f"{number.name}: the step in hand is finished and saved" in err
    assert f"error: {number.name} after step 2 of 100, saved in {tmp_path / 'run'}; the same command goes on" in err
    assert "trained weights" not in out and signal.getsignal(number) is before
    assert saved(tmp_path / "run") == [2] and read_notes(tmp_path / "run" / "weights.safetensors")["steps"] == "2"


def test_a_second_signal_while_saving_loses_nothing(
    make_config: MakeConfig, tmp_path: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruptions, "_SAME_SECONDS", 0.0)
    save = torch.save

    def interrupted(*arguments: Any) -> None:
        send(signal.SIGINT)
        save(*arguments)

    monkeypatch.setattr(torch, "save", interrupted)
    at_step(1, lambda: send(signal.SIGINT))
    with pytest.raises(Interruption, match="SIGINT after step 2"):
        train_talker(make_config())
    assert saved(tmp_path / "run") == [2]


def test_a_third_signal_ends_at_once_and_leaves_the_former_checkpoint(
    make_config: MakeConfig, tmp_path: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    train_talker(config, max_steps=1)
    monkeypatch.setattr(interruptions, "_SAME_SECONDS", 0.0)
    monkeypatch.setattr(torch, "save", lambda *_: send(signal.SIGINT, times=2))
    at_step(1, lambda: send(signal.SIGINT))
    assert main(["train", str(config)]) == 130
    assert saved(tmp_path / "run") == [1] and not list((tmp_path / "run").rglob("*.cbtalk-part"))
    load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[0])


def test_one_press_that_arrives_twice_is_one_request(make_config: MakeConfig, at_step: Any) -> None:
    at_step(1, lambda: send(signal.SIGTERM, times=4))
    with pytest.raises(Interruption):
        train_talker(make_config())


def test_a_signal_that_is_ignored_stays_ignored(make_config: MakeConfig, tmp_path: Path, at_step: Any) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    at_step(1, lambda: send(signal.SIGHUP))
    train_talker(make_config(), max_steps=3)
    assert saved(tmp_path / "run") == [3]


def test_weights_are_called_trained_only_at_the_end(
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(make_config(run={"steps": 2}))
    assert main(["train", config, "--max-steps", "1"]) == 0
    assert capsys.readouterr().out.endswith("weights.safetensors: weights after 1 of 2 steps\n")
    assert main(["train", config]) == 0
    assert capsys.readouterr().out.endswith("weights.safetensors: trained weights\n")


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save, calls = torch.save, iter(range(100))

    def sometimes(value: Any, file: Any) -> None:
        if next(calls) == 1:  # the checkpoint after step 2: as torch reports what a file refuses
            try:
                with Path("/dev/full").open("wb", buffering=0) as full:
                    full.write(b"a checkpoint")
            except OSError:
                raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - so does torch
        save(value, file)

    monkeypatch.setattr(torch, "save", sometimes)
    with caplog.at_level(logging.WARNING):
        train_talker(make_config(run={"checkpoint_every": 1}), max_steps=3)
    assert "step 2: " in caplog.text and "No space left on device" in caplog.text
    assert saved(tmp_path / "run") == [1, 3]


def test_a_disk_that_stays_full_is_one_line_and_leaves_what_was_saved(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    train_talker(config, max_steps=1)

    def full(*_: Any) -> None:
        raise SystemFailure("cannot be written: No space left on device")

    monkeypatch.setattr(state, "_save", full)
    with pytest.raises(SystemFailure, match="No space left"):
        train_talker(config, max_steps=2)
    assert saved(tmp_path / "run") == [1]


def test_what_fails_in_a_step_is_saved_before_it_is_raised(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = PairLoader.batch

    def memory_ends(self: PairLoader, number: int) -> Any:
        if number == 3:
            raise MemoryError
        return batch(self, number)

    monkeypatch.setattr(PairLoader, "batch", memory_ends)
    with pytest.raises(MemoryError):
        train_talker(make_config())
    assert saved(tmp_path / "run") == [3]


def test_a_failing_tensorboard_is_left_out(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def add_scalar(self, *_: object) -> None:
            raise OSError("no space")

    monkeypatch.setattr(logs, "_tensorboard", lambda *_: Failing())
    with caplog.at_level(logging.WARNING):
        train_talker(make_config(), max_steps=3)
    assert caplog.text.count("TensorBoard failed") == 1 and saved(tmp_path / "run") == [3]


@pytest.mark.parametrize("at_once", slow(True, False), ids=["while the networks learn", "while frames are read"])
def test_a_reading_process_that_dies_is_replaced(
    make_config: MakeConfig, tmp_path: Path, at_step: Any, caplog: pytest.LogCaptureFixture, at_once: bool
) -> None:
    whole = train_talker(make_config("whole", data={"workers": 1}), max_steps=8)
    at_step(2, lambda: kill_children(at_once=at_once))
    with caplog.at_level(logging.WARNING):
        killed = train_talker(make_config("killed", data={"workers": 1}), max_steps=8)
    assert "a process that reads frames died" in caplog.text
    assert whole.read_bytes()[-1000:] == killed.read_bytes()[-1000:]  # the same pairs in the same order


@pytest.mark.parametrize("log_every", [0, *slow(1000)])
def test_a_run_that_diverges_keeps_its_last_good_checkpoints(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    step = Trainer.train_step

    def train_step(self: Trainer) -> dict[str, Tensor]:
        if self.step >= 3:
            monkeypatch.setattr("cbtalk.train.losses.keypoint_distance", lambda points: points.sum() * float("nan"))
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(TrainingError, match="5 steps in a row"):
        train_talker(
            make_config(run={"max_bad_steps": 5, "checkpoint_every": 1, "keep_checkpoints": 2, "log_every": log_every})
        )
    assert saved(tmp_path / "run") == [2, 3]


def test_0_is_never_and_minus_1_is_all(make_config: MakeConfig, tmp_path: Path) -> None:
    train_talker(make_config("off", run={"log_every": 0, "sample_every": 0, "checkpoint_every": 0}), max_steps=3)
    assert saved(tmp_path / "off") == [3]
    assert not (tmp_path / "off" / "log.csv").exists() and not (tmp_path / "off" / "samples").exists()
    train_talker(make_config("all", run={"keep_checkpoints": -1, "checkpoint_every": 1}), max_steps=5)
    assert saved(tmp_path / "all") == [1, 2, 3, 4, 5]


def test_a_resumed_run_takes_over_the_settings_and_says_so(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_talker(make_config(), max_steps=1)
    train_talker(make_config(optimizer={"betas": [0.5, 0.9], "eps": 1e-6}), max_steps=2)
    err = capsys.readouterr().err
    assert "changed since: optimizer.betas [0.9, 0.99] -> [0.5, 0.9]" in err and "optimizer.eps 1e-08 -> 1e-06" in err
    kept = load_checkpoint(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    (group,) = kept["optimizers"]["net_g"]["param_groups"]
    assert tuple(group["betas"]) == (0.5, 0.9) and group["eps"] == 1e-6
