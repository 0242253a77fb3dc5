"""The whole evaluation: clips reconstructed, portraits driven, figures and images written."""

import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cbtalk.errors import ConfigError
from cbtalk.evaluate.collect import collect
from cbtalk.evaluate.evaluator import Evaluator, Setting
from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.jobs import Job, crossings, find_portraits, reconstructions
from cbtalk.evaluate.outputs import Outputs
from cbtalk.evaluate.pairs import read_pairs
from cbtalk.evaluate.parts import Parts, open_parts
from cbtalk.evaluate.report import left_out
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
        The report: what `collect` gives, and {"weights", "data", "pairs", "dtype", "size", "every", "smooth", "absent":
        {figure: why}, "interrupted": number of the signal, or None}.

    Raises:
        InputError, WeightsError: portraits, the list, weights, models or the sheet beside cannot be used, or no clip
            at all.
        OutputError: an output cannot be written where it should be.
    """
    outputs = Outputs(output_json, sheet, beside, videos)
    outputs.check()
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
    with ranks() as joined:
        if joined.count > 1 and (output_json is None or workers > 1):
            raise ConfigError("under torchrun, name an --output; its processes are the workers")
        return _evaluate(
            replace(setting, device=joined.device(device)), data, pairs, portraits, outputs, workers, joined
        )


def _evaluate(
    setting: Setting,
    data: Path,
    pairs: Path | None,
    portraits: Sequence[Path],
    outputs: Outputs,
    workers: int,
    joined: Ranks,
) -> dict[str, Any]:
    """Does this process' share of the jobs; the report of all, which the first process writes."""
    with open_parts(outputs.figures) as parts, Interruptions(_INTERRUPTED) as interruptions:
        evaluator, jobs = _begin(setting, data, pairs, portraits, parts, workers)
        setting = replace(setting, size=evaluator.judge.size)
        files = outputs.videos_of(jobs)
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
            outputs.write(report, jobs, parts)
            outputs.sweep(files.values())
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
