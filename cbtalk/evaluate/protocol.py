"""Same-identity reconstruction: each clip's first frame, animated by the rest of the clip in absolute motion."""

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from cbtalk.atomic import atomic_path
from cbtalk.errors import InputError, OutputError
from cbtalk.evaluate.metrics import l1, psnr, ssim
from cbtalk.media.clips import Clip, clip_frames, find_clips
from cbtalk.model.checkpoint import load
from cbtalk.model.talker import Talker

METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1, "psnr": psnr, "ssim": ssim}
SUBJECTS = ("result", "repeat")  # the talker's pictures; the source repeated


def run(
    weights: str,
    data: Path,
    output_json: Path | None = None,
    *,
    size: int | None = None,
    batch_size: int = 8,
    device: str = "cpu",
) -> dict[str, Any]:
    """Evaluates weights on a folder of clips; writes the figures as JSON and, beside it, as a Markdown table.

    Args:
        weights: a preset's name or a weights file.
        data: video files or folders of frames.
        output_json: absent: nothing is written.
        size: pictures are compared at this size, the talker's resized to it (bicubic); default: its own.
        batch_size: frames at once.

    Returns:
        {"weights", "data", "size", "clips": {name: {"frames", "result": {...}, "repeat": {...}}}, "mean": {...}}: l1,
        psnr (dB) and ssim; a clip's are means over frames 2..n, "mean" those over clips.

    Raises:
        InputError, WeightsError: the clips or the weights cannot be used.
        OutputError: `output_json` is no .json file in a folder that exists.
    """
    if output_json is not None and (output_json.suffix != ".json" or not output_json.parent.is_dir()):
        raise OutputError(f"{output_json}: must be a .json file in a folder that exists")
    talker = load(weights, device=device)
    clips = find_clips(data)
    size = size or talker.image_size
    figures = {}
    for clip in tqdm(clips, desc="evaluating", unit="clip"):
        figures[clip.name] = evaluate_clip(talker, clip, size=size, batch_size=batch_size)
    mean = {
        subject: {name: float(np.mean([clip[subject][name] for clip in figures.values()])) for name in METRICS}
        for subject in SUBJECTS
    }
    report = {"weights": str(weights), "data": str(data), "size": size, "clips": figures, "mean": mean}
    if output_json is not None:
        _write(output_json, json.dumps(report, indent=2) + "\n")
        _write(output_json.with_suffix(".md"), markdown(report))
    return report


@torch.inference_mode()
def evaluate_clip(talker: Talker, clip: Clip, *, size: int, batch_size: int) -> dict[str, Any]:
    """Mean figures over the second to the last frame of a clip, compared at `size` x `size`."""
    device = next(talker.parameters()).device
    frames = clip_frames(clip, size)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{clip.path}: no frame in it")
    source = _pictures([first], device)
    state = talker.encode_source(_resized(source, talker.image_size))
    collected: dict[str, list[Tensor]] = {f"{subject}.{name}": [] for subject in SUBJECTS for name in METRICS}
    while part := list(islice(frames, batch_size)):
        target = _pictures(part, device)
        result = _resized(talker.animate(state, _resized(target, talker.image_size)), size)
        for subject, picture in zip(SUBJECTS, (result, source.expand_as(target)), strict=True):
            for name, metric in METRICS.items():
                collected[f"{subject}.{name}"].append(metric(picture, target).cpu())
    if not collected["result.l1"]:
        raise InputError(f"{clip.path}: one frame only; a clip has a source and at least one more")
    means = {key: torch.cat(values).mean().item() for key, values in collected.items()}
    by_subject = {subject: {name: means[f"{subject}.{name}"] for name in METRICS} for subject in SUBJECTS}
    return {"frames": sum(len(values) for values in collected["result.l1"]), **by_subject}


def markdown(report: dict[str, Any]) -> str:
    """The figures of `run` as a Markdown table, those of repeating the source in brackets."""
    rows = {**report["clips"], "mean": report["mean"]}
    lines = [
        f"`{report['weights']}` on `{report['data']}` at {report['size']} px: the first frame animated by the rest, "
        "absolute motion (repeating the first frame in brackets).",
        "",
        "| clip | L1 | PSNR (dB) | SSIM |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        cells = (
            f"{row['result'][key]:{form}} ({row['repeat'][key]:{form}})"
            for key, form in (("l1", ".4f"), ("psnr", ".2f"), ("ssim", ".4f"))
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _pictures(frames: Iterable[np.ndarray], device: torch.device) -> Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(list(frames))).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _resized(picture: Tensor, size: int) -> Tensor:
    if picture.shape[-1] == size:
        return picture
    return F.interpolate(picture, size=(size, size), mode="bicubic", antialias=True, align_corners=False)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
