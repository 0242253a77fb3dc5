"""The whole evaluation: clips reconstructed, portraits driven, figures and pictures written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cbtalk.atomic import atomic_path
from cbtalk.errors import ConfigError, InputError, OutputError
from cbtalk.evaluate.cross_identity import evaluate_portraits
from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.judge import Frame, Judge, make_judge
from cbtalk.evaluate.lpips import SMALLEST_SIDE
from cbtalk.evaluate.report import markdown, mean_figures
from cbtalk.evaluate.same_identity import Show, evaluate_clip
from cbtalk.evaluate.sheet import ContactSheet, Moments, comparison_video
from cbtalk.media.clips import Clip, find_clips, square
from cbtalk.media.images import read_image
from cbtalk.media.kinds import IMAGE_SUFFIXES
from cbtalk.model.checkpoint import load
from cbtalk.model.smooth import SMOOTHEST
from cbtalk.model.talker import Talker
from cbtalk.precision import float32_convolutions


@float32_convolutions()
def run(
    weights: str,
    data: Path,
    output_json: Path | None = None,
    *,
    portraits: Sequence[Path] = (),
    models: Path | None = None,
    extractors: Extractors | None = None,
    sheet: Path | None = None,
    videos: Path | None = None,
    size: int | None = None,
    every: int = 1,
    smooth: float = 0.0,
    batch_size: int = 8,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Evaluates weights on a folder of clips; writes the figures as JSON and, beside it, as a Markdown table.

    Args:
        weights: a preset's name or a weights file.
        data: video files or folders of frames.
        output_json: absent: nothing is written.
        portraits: pictures, or folders of them, to be driven by each clip in relative motion.
        models: folder of the networks of LPIPS and of the extractors; without it their figures are absent.
        extractors: in place of those that are installed and have their files in `models`.
        sheet: contact sheet (.png) to write.
        videos: folder for comparison videos, source | driving | result: one a clip, and one a portrait.
        size: pictures are compared at this size, the talker's resized to it (bicubic); default: its own.
        every: LPIPS and the extractors see one of this many runs of three frames.
        smooth: time constant in seconds of the smoothing of the driving motion; 0: none.
        batch_size: frames at once.
        dtype: of the talker, as for `cbtalk.load`; what half precision leaves not finite shows as such in the figures.

    Returns:
        {"weights", "data", "dtype", "size", "every", "smooth", "clips": {name: figures of `evaluate_clip`}, "mean":
        {subject: figures}, "cross": {portrait: {clip: figures of `evaluate_portraits`}}, "cross_mean": {subject:
        figures}, "absent": {figure: why}}; means are those over clips, and over pairs of portrait and clip.

    Raises:
        InputError, WeightsError: clips, portraits, weights or models cannot be used.
        OutputError: an output cannot be written where it should be.
    """
    _check_outputs(output_json, sheet, videos)
    talker = load(weights, device=device, dtype=dtype)
    clips = find_clips(data)
    size = size or talker.image_size
    if size < SMALLEST_SIDE or every < 1 or batch_size < 1 or not 0 <= smooth <= SMOOTHEST:
        limits = f"size must be {SMALLEST_SIDE} or more, every and batch size 1 or more"
        raise ConfigError(f"{limits}, smooth 0 to {SMOOTHEST:g} seconds")
    judge = make_judge(models, extractors, size=size, every=every, batch_size=batch_size, device=device)
    pictures = read_portraits(portraits, size)
    views = _Views(videos, sheet is not None, size)
    figures: dict[str, Any] = {}
    cross: dict[str, dict[str, Any]] = {name: {} for name in pictures}
    with tqdm(total=len(clips) * (1 + len(pictures)), desc="evaluating", unit="clip", disable=None) as bar:
        for clip in clips:
            with views.of(clip, clip.name) as show:
                figures[clip.name] = evaluate_clip(talker, clip, judge, show, smooth=smooth)
            bar.update()
        for number, clip in enumerate(clips if pictures else ()):
            shown = [name for place, name in enumerate(pictures) if place % len(clips) == number]
            for name, found in _driven(talker, clip, pictures, judge, views, shown, smooth).items():
                cross[name][clip.name] = found
            bar.update(len(pictures))
    report = {
        "weights": str(weights),
        "data": str(data),
        "dtype": str(dtype).removeprefix("torch."),
        "size": size,
        "every": every,
        "smooth": smooth,
        "clips": figures,
        "mean": mean_figures(list(figures.values())),
        "cross": cross,
        "cross_mean": mean_figures([pair for pairs in cross.values() for pair in pairs.values()]),
        "absent": judge.absent,
    }
    if sheet is not None:
        views.sheet.save(sheet)
    if output_json is not None:
        _write(output_json, json.dumps(report, indent=2) + "\n")
        _write(output_json.with_suffix(".md"), markdown(report))
    return report


def read_portraits(paths: Sequence[Path], size: int) -> dict[str, Frame]:
    """Pictures, and those of folders, by their file names: centre squares, uint8 (size, size, 3).

    Raises:
        InputError: there is no picture, one cannot be read, or two have the same name.
    """
    files = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [file for file in inside if file == path or file.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise InputError(f"{path}: no picture in it")
        files += found
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name}: two portraits of this name; rename one")
    return {file.name: square(read_image(file), size) for file in files}


def _driven(
    talker: Talker,
    clip: Clip,
    portraits: Mapping[str, Frame],
    judge: Judge,
    views: "_Views",
    shown: list[str],
    smooth: float,
) -> dict[str, Any]:
    with ExitStack() as stack:
        shows = {name: stack.enter_context(views.of(clip, f"{name} by {clip.name}")) for name in shown}
        wanted = {name: show for name, show in shows.items() if show is not None}
        return evaluate_portraits(talker, clip, portraits, judge, wanted, smooth=smooth)


class _Views:
    """The contact sheet and the videos, where they are asked for."""

    def __init__(self, videos: Path | None, with_sheet: bool, size: int) -> None:
        self._videos, self._with_sheet, self._size = videos, with_sheet, size
        self.sheet = ContactSheet()

    @contextmanager
    def of(self, clip: Clip, title: str) -> Iterator[Show | None]:
        """What takes each source, driving and result of a sequence; None where nobody looks."""
        if self._videos is None and not self._with_sheet:
            yield None
            return
        moments = Moments()
        sources: list[Frame] = []
        with ExitStack() as stack:
            writer = None
            if self._videos is not None:
                path = self._videos / f"{title.replace('/', '_')}.mp4"
                writer = stack.enter_context(comparison_video(path, clip, self._size))

            def show(source: Frame, driving: Frame, result: Frame) -> None:
                if writer is not None:
                    writer.write(np.concatenate([source, driving, result], axis=1), moments.seen)
                moments.add(driving, result)
                sources[:] = [source]

            yield show
        self.sheet.add(title, sources[0], moments.chosen())


def _check_outputs(output_json: Path | None, sheet: Path | None, videos: Path | None) -> None:
    for path, suffix in ((output_json, ".json"), (sheet, ".png")):
        if path is not None and (path.suffix != suffix or not path.parent.is_dir()):
            raise OutputError(f"{path}: must be a {suffix} file in a folder that exists")
    if videos is not None:
        try:
            videos.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{videos}: must be a folder, or a new one in a folder that exists") from error


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
