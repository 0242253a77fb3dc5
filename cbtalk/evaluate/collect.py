"""The figures of all jobs together."""

from collections.abc import Sequence
from typing import Any

from cbtalk.evaluate.jobs import Job
from cbtalk.evaluate.parts import Parts
from cbtalk.evaluate.report import Figures, mean_figures, with_fid
from cbtalk.metrics.frechet import Gaussian, frechet_distance


def collect(jobs: Sequence[Job], parts: Parts) -> dict[str, Any]:
    """The report of the jobs, in their order, whoever did them.

    Returns:
        {"clips": {name: figures of `evaluate_clip`}, "mean": {subject: figures}, "cross": {source: {driving: figures of
        `evaluate_portraits`}}, "cross_mean": {subject: figures}, "fid": {"clips" or "cross": {"images", "numbers"}},
        "failed": {name: why}, "warnings": {name: texts}, "missing": names of what was not done}; means are those over
        clips, and over pairs; FID is that of all their images.
    """
    outcomes = {job: parts.read(job) for job in jobs}
    done = [job for job in jobs if "figures" in outcomes[job]]
    clips = {job.clip.name: outcomes[job]["figures"] for job in done if not job.pairs}
    cross: dict[str, dict[str, Any]] = {pair.source.name: {} for job in done for pair in job.pairs}
    for job in done:
        for pair in job.pairs:
            cross[pair.source.name][pair.driving] = outcomes[job]["figures"][pair.source.name]
    counts: dict[str, dict[str, int]] = {}
    fid = _Fid([job for job in done if not job.pairs], parts, counts, "clips")
    cross_fid = _Fid([job for job in done if job.pairs], parts, counts, "cross")
    return {
        "clips": clips,
        "mean": with_fid(mean_figures(list(clips.values())), fid.figures("repeat")),
        "cross": cross,
        "cross_mean": with_fid(
            mean_figures([found for by_source in cross.values() for found in by_source.values()]),
            cross_fid.figures("real"),
        ),
        "fid": counts,
        "failed": {job.name: outcome["error"] for job, outcome in outcomes.items() if "error" in outcome},
        "warnings": {job.name: outcomes[job]["warnings"] for job in done if outcomes[job]["warnings"]},
        "missing": [job.name for job, outcome in outcomes.items() if not outcome],
    }


class _Fid:
    """FID of the results of jobs; `counts` takes how many images there were, and how many numbers each gave."""

    def __init__(self, jobs: Sequence[Job], parts: Parts, counts: dict[str, dict[str, int]], name: str) -> None:
        self._real, self._result, self._source = Gaussian(), Gaussian(), Gaussian()
        for job in jobs:
            vectors = parts.vectors(job)
            results = [key for key in vectors if key.startswith("result_")]
            if results:
                self._real.add(vectors["real"], times=len(results))
            for key in results:
                self._result.add(vectors[key])
                self._source.add(vectors[key.replace("result", "source")], times=len(vectors[key]))
        if self._result.count:
            counts[name] = {"images": self._result.count, "numbers": len(self._result.mean())}

    def figures(self, baseline: str) -> Figures:
        """`fid`: against the driving clips' frames; `fid_source`: against the sources, as the released code has it.

        Args:
            baseline: the subject of which the FID of the sources against the clips' frames is one.
        """
        if self._result.count < 2:
            return {}
        return {
            "result": {
                "fid": frechet_distance(self._result, self._real),
                "fid_source": frechet_distance(self._result, self._source),
            },
            baseline: {"fid": frechet_distance(self._source, self._real)},
        }
