"""The whole evaluation: clips reconstructed, portraits driven, figures and images written."""

import json
import logging
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cbtalk.atomic import left_over, write_text
from cbtalk.errors import ConfigError, InputError, OutputError
from cbtalk.evaluate.collect import collect
from cbtalk.evaluate.evaluator import Evaluator, Setting
from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.jobs import Job, crossings, file_names, find_portraits, reconstructions
from cbtalk.evaluate.pairs import read_pairs
from cbtalk.evaluate.parts import Parts, open_parts
from cbtalk.evaluate.report import left_out, markdown
from cbtalk.evaluate.sheet import save_sheet
from cbtalk.evaluate.working import Ranks, rank, ranks, work
from cbtalk.interruptions import Interruptions
from cbtalk.media.clips import find_clips
from cbtalk.model.hub import pinned
from cbtalk.model.smooth import SMOOTHEST
from cbtalk.options.evaluate import Measures
from cbtalk.pretrained.lpips import SMALLEST_SIDE

logger = logging.getLogger(__name__)

_INTERRUPTED = ("clips in hand are finished, then the figures so far are written; once more ends now",)


def evaluate_weights(
    weights: str,
    data: Path,
    output_json: Path | None = None,
    *,
    pairs: Path | None = None,
    portraits: Sequence[Path] = (),
    models: Path | None = None,
    extractors: Extractors | None = None,
    sheet: Path | None = None,
    beside: Path | None = None,
    videos: Path | None = None,
    size: int | None = Measures.size,
    every: int = Measures.every,
    smooth: float = Measures.smooth,
    batch_size: int = Measures.batch_size,
    workers: int = 1,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Evaluates weights on a folder of clips; writes the figures as JSON and, beside it, as a Markdown table.

    A clip that cannot be used costs its own figures alone. What is done is kept beside the output, in the folder
    `<name>.parts`, until all is done: the same call goes on there. The first interruption (SIGINT, SIGTERM, SIGHUP)
    lets the clips in hand finish; the report is then of what is done.

    Args:
        weights: a preset's name, a weights file or a repository, as for `cbtalk.load`.
        data: video files or folders of frames.
        output_json: absent: nothing is written.
        pairs: list (.csv) of sources and driving clips of `data`: these are evaluated, in relative motion, in place of
            the reconstruction of every clip.
        portraits: images, or folders of them, to be driven by each clip in relative motion.
        models, size, every, smooth, batch_size: as `cbtalk.options.evaluate.Measures` explains them.
        extractors: in place of those that are installed and have their files in `models`.
        sheet: contact sheet (.png) to write.
        beside: contact sheet of the same clips by other weights, whose results the sheet shows below its own.
        videos: folder for comparison videos, source | driving | result: one a clip, and one a portrait or pair.
        workers: processes that share the clips, and torch's threads. The ranks of torchrun share them too, and each
            returns the report of all.
        dtype: of the talker, as for `cbtalk.load`; what half precision leaves not finite shows as such in the figures.

    Returns:
        {"weights", "data", "pairs", "dtype", "size", "every", "smooth", "clips": {name: figures of `evaluate_clip`},
        "mean": {subject: figures}, "cross": {source: {driving: figures of `evaluate_portraits`}}, "cross_mean":
        {subject: figures}, "fid": {"clips" or "cross": {"images", "numbers"}}, "absent": {figure: why}, "failed":
        {name: why}, "warnings": {name: texts}, "missing": names of what was not done, "interrupted": number of the
        signal, or None}; means are those over clips, and over pairs; FID is that of all their images.

    Raises:
        InputError, WeightsError: portraits, the list, weights, models or the sheet beside cannot be used, or no clip
            at all.
        OutputError: an output cannot be written where it should be.
    """
    _check_outputs(output_json, sheet, videos)
    if beside is not None and (sheet is None or not beside.is_file()):
        raise InputError(f"{beside}: no such file") if sheet else ConfigError("--beside goes with --sheet")
    setting = Setting(
        weights=pinned(weights),
        models=models,
        extractors=extractors,
        size=size,
        every=every,
        smooth=smooth,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        with_sheet=sheet is not None,
        videos=videos,
    )
    with ranks() as joined, open_parts(output_json) as parts, Interruptions(_INTERRUPTED) as interruptions:
        if joined.count > 1 and (output_json is None or workers > 1):
            raise ConfigError("under torchrun, name an --output; its processes are the workers")
        setting = replace(setting, device=joined.device(device))
        evaluator, jobs = _begin(setting, data, pairs, portraits, parts, workers)
        setting = replace(setting, size=evaluator.judge.size)
        named = file_names([title for job in jobs for title in sorted(job.shown)])
        files = {title: videos / f"{name}.mp4" for title, name in named.items()} if videos is not None else {}
        waiting = [job for job in joined.share(jobs) if not parts.is_done(job)]

        def stop() -> bool:
            return interruptions.count > 0

        _follow(work(waiting, evaluator, setting, parts, files, workers, stop), jobs, waiting, parts, joined)
        joined.meet()
        names = {"data": str(data), "pairs": None if pairs is None else str(pairs)}
        report = {**setting.facts(), **names, **collect(jobs, parts), "absent": evaluator.judge.absent}
        report["interrupted"] = interruptions.number if report["missing"] else None
        joined.meet()
        if joined.rank == 0:
            _finish(report, jobs, parts, output_json, sheet, beside)
            _sweep(videos, files.values())
    return report


def _begin(
    setting: Setting, data: Path, pairs: Path | None, portraits: Sequence[Path], parts: Parts, workers: int
) -> tuple[Evaluator, list[Job]]:
    """The evaluator of this process, and the jobs."""
    if workers < 1:
        raise ConfigError(f"--workers {workers}: must be 1 or more")
    if pairs is not None and portraits:
        raise ConfigError("--portraits: a list of pairs names its sources itself")
    first = Evaluator(replace(setting, device="cpu") if workers > 1 else setting, parts)
    clips = find_clips(data)
    size, every, smooth = first.judge.size, setting.every, setting.smooth
    if size < SMALLEST_SIDE or every < 1 or setting.batch_size < 1 or not 0 <= smooth <= SMOOTHEST:
        limits = f"size must be {SMALLEST_SIDE} or more, every and batch size 1 or more"
        raise ConfigError(f"{limits}, smooth 0 to {SMOOTHEST:g} seconds")
    setting = replace(setting, size=size)
    if first.judge.absent and rank() == 0:
        logger.warning("%s", left_out(first.judge.absent))
    if pairs is not None:
        return first, crossings(read_pairs(pairs, data, clips), setting.fingerprint())
    found = find_portraits(portraits)
    for portrait in found:
        portrait.read(size)
    return first, reconstructions(clips, found, setting.fingerprint())


def _follow(
    working: Generator[Job, None, None], jobs: Sequence[Job], waiting: Sequence[Job], parts: Parts, joined: Ranks
) -> None:
    """Sees the waiting jobs done, and tells what is wrong with them as it comes."""
    done = len(joined.share(jobs)) - len(waiting)
    hidden = None if joined.rank == 0 else True
    with closing(working), tqdm(total=len(joined.share(jobs)), initial=done, desc="evaluating", disable=hidden) as bar:
        for job in working:
            outcome = parts.read(job)
            for text in outcome.get("warnings", ()):
                logger.warning("%s: %s", job.name, text)
            bar.update()


def _finish(
    report: dict[str, Any],
    jobs: Sequence[Job],
    parts: Parts,
    output_json: Path | None,
    sheet: Path | None,
    beside: Path | None,
) -> None:
    """Write what is there; raises InputError where nothing is."""
    if not report["clips"] and not report["cross"] and report["failed"]:
        name, reason = next(iter(report["failed"].items()))
        parts.remove()
        raise InputError(f"none of {len(report['failed'])} could be evaluated; {name}: {reason}")
    if output_json is not None and (report["clips"] or report["cross"]):
        write_text(output_json, json.dumps(report, indent=2) + "\n")
        write_text(output_json.with_suffix(".md"), markdown(report))
    bands = [band for job in jobs for band in parts.bands(job)]
    if sheet is not None and bands:
        save_sheet(sheet, bands, beside)
    if not report["failed"] and not report["missing"]:
        parts.remove()


def _sweep(folder: Path | None, files: Iterable[Path]) -> None:
    """Remove what killed processes left of the videos."""
    names = {file.name for file in files}
    for path, name in left_over(folder) if folder is not None else ():
        if name in names:
            path.unlink(missing_ok=True)


def _check_outputs(output_json: Path | None, sheet: Path | None, videos: Path | None) -> None:
    for path, suffix in ((output_json, ".json"), (sheet, ".png")):
        if path is not None and (path.suffix != suffix or not path.parent.is_dir()):
            raise OutputError(f"{path}: must be a {suffix} file in a folder that exists")
    if videos is not None:
        try:
            videos.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{videos}: must be a folder, or a new one in a folder that exists") from error
