"""A trace of torch's profiler, with the names that Nsight shows too."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.measure import OURS, Prepared
from bench.model import Scene
from bench.peak import quiet_profiler
from cbtalk.atomic import atomic_path


def write_trace(path: Path, prepared: list[Prepared], scene: Scene | None, device: str) -> None:
    """One call of our side of each case, and one frame of the model."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with quiet_profiler(), profile(activities=activities, acc_events=True) as recorded:
        for one in prepared:
            if OURS in one.sides:
                with record_function(one.case.name):
                    one.sides[OURS][0]()
        if scene is not None:
            with record_function("one frame"), torch.inference_mode():
                scene.animate(1)()
    with atomic_path(path) as temporary:
        recorded.export_chrome_trace(str(temporary))
