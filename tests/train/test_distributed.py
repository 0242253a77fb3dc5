"""Several processes that train one model: what one would do, in shares, and how they end together."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.launch import Group
from cbtalk.cli import main
from cbtalk.train import train_talker
from cbtalk.train.batch_norm import synchronise
from cbtalk.train.data import Batch, PairLoader
from cbtalk.train.face_points import POINTS
from cbtalk.train.processes import is_first, joined
from cbtalk.train.state import checkpoints, load_checkpoint
from cbtalk.train.trainer import Trainer
from tests.helpers.tiers import slow
from tests.helpers.training import MakeConfig, saved

SMALL = {  # twenty steps in float64 take seconds
    "keypoints": len(POINTS),
    "motion_downsampling": 4,
    "keypoint_expansion": 2,
    "dense_expansion": 2,
    "hourglass_max": 8,
    "nf": 4,
    "norm_groups": 2,
    "motion_codes": 8,
    "motion_dim": 8,
    "motion_hidden": 8,
    "appearance_codes": 8,
    "appearance_dim": 8,
    "appearance_layers": 1,
    "heads": 2,
    "discriminator_nf": 2,
}
EVERY_PHASE: dict[str, Any] = {
    "model": SMALL,
    "augment": {"brightness": 0.2, "scale": 0.1, "blur": 1.0, "jpeg": 1.0},
    "loss": {"perceptual": 0.0, "low_resolution": 0.5, "changed": 1.0, "expression": 1.0, "guidance": 1.0},
    "guidance": {"model": __file__, "steps": 3, "batches": 2},  # the detector alone; nobody reads the file
    "adversarial": {"weight": 0.8, "after_step": 8},  # all but the discriminator, then all
    "ema": {"motion_estimator": True},
    "optimizer": {"clip_norm": 10.0},
    "run": {"batch_size": 4, "micro_batches": 2, "synchronise_batch_norm": True, "checkpoint_every": 0},
}


def rows(output: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    with (output / "log.csv").open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value and not name.startswith(("samples", "share"))}
            for row in csv.DictReader(file)
        ]


def train(config: Path, *arguments: str) -> int:
    return main(["train", str(config), *arguments])


def errors(group: Group) -> list[str]:
    """The lines of all processes that name an error."""
    said = "\n".join(group.said(rank) for rank in range(len(group.processes)))
    return [line[line.index("error: ") :] for line in re.split(r"[\n\r]", said) if "error: " in line]


def points_of_faces(files: Any, clips: Any, model: Any) -> list[np.ndarray]:
    """Points as the mesh could have found them; of a part of the frames, none."""
    rng = np.random.default_rng(0)
    found = [rng.uniform(-0.9, 0.9, (len(clip), len(POINTS), 2)).astype(np.float32) for clip in clips]
    for points in found:
        points[rng.random(points.shape[:2]) < 0.3] = np.nan
    return found


def train_in_float64(config: Path, steps: int) -> None:
    """Writes the figures of the steps. In float32, rounding is amplified until the last of twenty steps differ."""
    make, batch, step = Trainer.__init__, PairLoader.batch, Trainer.train_step
    found: list[dict[str, float]] = []

    def made(self: Trainer, *arguments: Any) -> None:
        make(self, *arguments)
        for network in (self.talker, self.average, self.discriminator):
            network.double()

    def read(self: PairLoader, number: int) -> Batch:
        source, driving, points = batch(self, number)
        return Batch(source.double(), driving.double(), None if points is None else points.double())

    def stepped(self: Trainer) -> dict[str, Tensor]:
        figures = step(self)
        found.append({name: value.item() for name, value in figures.items()})
        return figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", made)
        patch.setattr(Trainer, "train_step", stepped)
        patch.setattr(PairLoader, "batch", read)
        for module in ("data", "training"):
            patch.setattr(f"cbtalk.train.{module}.find_landmarks", points_of_faces)
        train_talker(config, max_steps=steps)
    if is_first():
        torch.save(found, config.with_suffix(".pt"))


@pytest.mark.slow
def test_two_processes_train_as_one_does(make_config: MakeConfig, tmp_path: Path) -> None:
    groups = [Group(count, train_in_float64, make_config(str(count), **EVERY_PHASE), 20) for count in (1, 2)]
    assert [group.codes() for group in groups] == [[0], [0, 0]]
    one, two = (torch.load(tmp_path / f"{count}.pt") for count in (1, 2))
    assert len(one) == len(two) == 20
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-5)
    assert "guidance" in one[0] and "pixel" not in one[2] and "disc_fake" not in one[7] and "disc_fake" in one[8]
    alone, together = (load_checkpoint(checkpoints(tmp_path / name / "checkpoints")[0]) for name in "12")
    for part in ("networks", "average"):
        torch.testing.assert_close(together[part], alone[part], rtol=1e-5, atol=1e-7)


def normalised(x: Tensor, weights: Tensor, *, synchronised: bool) -> tuple[Tensor, ...]:
    """Output, gradients and running statistics of a batch norm in training, the loss a mean over images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(5))
    nn.init.normal_(network.get_parameter("0.weight"))
    if synchronised:
        synchronise(network)
    x = x.clone().requires_grad_()
    y = network(x)
    (y.float().sin() * weights).mean().backward()
    gradients = [tensor.grad for tensor in (x, *network.parameters()) if tensor.grad is not None]
    return y.detach(), *gradients, network.get_buffer("0.running_mean"), network.get_buffer("0.running_var")


def batch_norms(dtype: torch.dtype, file: Path) -> None:
    with joined() as processes:
        x, weights = (tensor[processes.share.rows(6)] for tensor in images_for_batch_norm(dtype))
        torch.save(normalised(x, weights, synchronised=True), file.with_suffix(f".{processes.rank}"))


def images_for_batch_norm(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 3 + torch.randn(6, 5, 4, 4, generator=generator) * torch.arange(1, 7).view(6, 1, 1, 1)  # unlike in each process
    return x.to(dtype).contiguous(memory_format=torch.channels_last), torch.randn(6, 5, 4, 4, generator=generator)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_a_synchronised_batch_norm_is_that_of_the_whole_batch(
    tmp_path: Path, dtype: torch.dtype, tolerance: float
) -> None:
    assert Group(3, batch_norms, dtype, tmp_path / "norm").codes() == [0] * 3
    expected = normalised(*images_for_batch_norm(dtype), synchronised=False)
    found = [torch.load(tmp_path / f"norm.{rank}") for rank in range(3)]
    y, of_x, of_weight, of_bias, mean, variance = zip(*found, strict=True)
    joined_up = (torch.cat(y), torch.cat(of_x) / 3, sum(of_weight) / 3, sum(of_bias) / 3, mean[0], variance[0])
    for ours, theirs in zip(joined_up, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    assert all(torch.equal(other, mean[0]) for other in mean)


@pytest.mark.parametrize(("killed", "workers"), [(0, 0), *slow((1, 1))])
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on(
    make_config: MakeConfig, tmp_path: Path, killed: int, workers: int
) -> None:
    options = {"batch_size": 6, "checkpoint_every": 2, "synchronise_batch_norm": True, "keep_checkpoints": -1}
    config = make_config(run=options, data={"workers": workers})  # which hold its connections, too
    group = Group(2, train, config)
    wait_for(lambda: saved(tmp_path / "run"), group)
    group.kill(signal.SIGKILL, killed)
    begun = time.monotonic()
    codes = group.codes(60)
    assert time.monotonic() - begun < 30
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] == 1
    (line,) = errors(group)
    last = saved(tmp_path / "run")[-1]
    assert "another process of this run ended" in line and "the same command goes on" in line
    assert killed == 0 or f"step {last} is saved" in line
    totals = []
    for count in (1, 2, 3):
        for path in checkpoints(tmp_path / "run" / "checkpoints"):
            if path.name > f"step_{last:08d}.pt":
                path.unlink()
        group = Group(count, train, config, "--max-steps", str(last + 1))
        assert group.codes() == [0] * count
        assert group.said().count("resuming from") == 1 and group.said().count("weights after") == 1
        assert all(group.said(rank) == "" for rank in range(1, count))
        totals.append(rows(tmp_path / "run")[-1]["total"])
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-3)


def wait_for(happened: Any, group: Group) -> None:
    while not happened():
        assert all(process.is_alive() for process in group.processes), [group.said(rank) for rank in range(2)]
        time.sleep(0.02)


def test_a_signal_to_one_process_ends_all_after_one_step(make_config: MakeConfig, tmp_path: Path) -> None:
    group = Group(2, train, make_config())
    wait_for(lambda: (tmp_path / "run" / "log.csv").exists(), group)
    group.kill(signal.SIGTERM, 1)
    assert group.codes() == [128 + signal.SIGTERM, 0]  # torchrun would end the first if the other failed ahead of it
    (line,) = errors(group)
    (step,) = saved(tmp_path / "run")
    assert f"SIGTERM after step {step} of 100, saved" in line and rows(tmp_path / "run")[-1]["step"] == step


def test_a_batch_that_cannot_be_shared_is_refused_once(make_config: MakeConfig) -> None:
    group = Group(2, train, make_config(run={"batch_size": 6, "micro_batches": 2}))
    assert group.codes() == [2, 2]
    (line,) = errors(group)
    assert "run.batch_size 6 cannot be shared by 2 processes" in line and "multiple of 4" in line


def test_what_only_the_first_process_finds_is_said_once(make_config: MakeConfig, tmp_path: Path) -> None:
    group = Group(2, train, make_config(data={"root": str(tmp_path / "nowhere")}))
    assert group.codes() == [2, 1]
    assert len(errors(group)) == 1 and "nowhere: not a folder of clips" in errors(group)[0]


def test_a_second_run_in_the_same_folder_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(data={"workers": 1})
    first = Group(1, train, config)
    wait_for(lambda: (tmp_path / "run" / "log.csv").exists(), first)
    second = Group(1, train, config)
    assert second.codes() == [2]
    (line,) = errors(second)
    assert f"another run is at work here (process {first.processes[0].pid} on" in line
    first.kill(signal.SIGKILL)
    assert first.codes() == [-signal.SIGKILL]
    third = Group(1, train, config, "--max-steps", "1")  # while those that read frames for the first may still live
    assert third.codes() == [0], third.said()


@pytest.mark.slow
def test_torchrun_trains_one_model_and_ends_when_one_process_dies(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(run={"batch_size": 4, "checkpoint_every": 1})
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cbtalk", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    torchrun = subprocess.Popen([*command, str(config)], stderr=pipe, env=environment, text=True)
    while not saved(tmp_path / "run"):
        assert torchrun.poll() is None
        time.sleep(0.05)
    first = int((tmp_path / "run" / ".train.lock").read_text().split()[1])
    workers = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    (other,) = {int(pid) for pid in workers if b"cbtalk" in Path(f"/proc/{pid}/cmdline").read_bytes()} - {first}
    os.kill(other, signal.SIGKILL)
    _, said = torchrun.communicate(timeout=30)
    assert torchrun.returncode == 1
    assert len(re.findall(r"error: another process of this run ended.*step \d+ is saved", said)) == 1
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, saved(tmp_path / "run")[-1] + 1))
