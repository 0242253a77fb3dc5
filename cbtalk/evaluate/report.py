"""Figures averaged, and as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

OF_REAL = ("jitter_", "opening_")  # figures that the real clip has, too
SUBJECTS = ("result", "repeat", "real")
NAMES = {
    "l1": "L1",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "colour_shift": "colour shift",
    "colour_spread": "colour spread",
    "lpips_alex": "LPIPS-alex",
    "lpips_vgg": "LPIPS-vgg",
}
FORMATS = {"l1": ".4f", "psnr": ".2f", "colour": ".2f", "jitter": ".2f", "landmarks": ".2f"}
FORMATS |= {"opening": ".3f", "following": ".2f"}

SAME_IDENTITY = (
    "`{weights}` on `{data}` at {size} px: the first frame animated by the rest, absolute motion (repeating the first "
    "frame in brackets). Colour: distances of the means, and of the standard deviations, in Lab. {every}"
)
FACES = (
    "The faces of the same clips, against those of the real frames; in brackets those of the first frame, repeated. "
    "Landmarks: mean distance in pixels of a 256 px picture; of mouth and eyes after laying one face over the other "
    "(shift, turn, scale), which leaves the expression. Identity: cosine and Euclidean distance of embeddings, and the "
    "share of frames taken for the same person. Opening of mouth and eyes: standard deviation in distances of the "
    "pupils, in brackets that of the real clip; following: its correlation with the real one, where that moves. "
    "Jitter: mean second difference of the landmarks in pixels, at 25 frames a second, in brackets that of the real "
    "clip."
)
CROSS = (
    "Each portrait driven by each clip, relative motion; means over clips. Identity: against the portrait, in brackets "
    "that of the driving person against it. Jitter: in brackets that of the driving clip."
)


def mean_figures(items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean of each figure of each subject over the items that have it."""
    result: dict[str, dict[str, float]] = {}
    for subject in SUBJECTS:
        held = [item[subject] for item in items if subject in item]
        names = dict.fromkeys(name for figures in held for name in figures)
        result[subject] = {name: float(np.mean([f[name] for f in held if name in f])) for name in names}
    return {subject: figures for subject, figures in result.items() if figures}


def markdown(report: Mapping[str, Any]) -> str:
    """The report of `run` as Markdown tables."""
    every = report["every"]
    how = "" if every == 1 else f"LPIPS and faces: three frames in a row out of every {3 * every}."
    how += f" The motion is smoothed with a time constant of {report['smooth']:g} s." if report["smooth"] else ""
    rows = {**report["clips"], "mean": report["mean"]}
    names = list(report["mean"]["result"])
    pictures = [name for name in names if name in NAMES]
    faces = [name for name in names if name not in NAMES]
    parts = [
        SAME_IDENTITY.format(**{**report, "every": how.strip()}).strip(),
        _table("clip", rows, pictures, "repeat"),
    ]
    if faces:
        parts += [FACES, _table("clip", rows, faces, "repeat")]
    if report["cross"]:
        portraits = {name: mean_figures(list(pairs.values())) for name, pairs in report["cross"].items()}
        rows = {**portraits, "mean": report["cross_mean"]}
        parts += [CROSS, _table("portrait", rows, list(report["cross_mean"].get("result", {})), "real")]
    notes = [*_no_face(report), *(f"- `{name}` is absent: {why}" for name, why in report["absent"].items())]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


def _table(first: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str], beside: str) -> str:
    lines = [f"| {' | '.join([first, *(NAMES.get(name, name) for name in columns)])} |"]
    lines.append(f"| {' | '.join(['---'] * (1 + len(columns)))} |")
    for name, row in rows.items():
        cells = (_cell(row, column, "real" if column.startswith(OF_REAL) else beside) for column in columns)
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], name: str, beside: str) -> str:
    """A figure of the result, the other subject's in brackets; a dash where no face was found."""
    form = FORMATS.get(name, FORMATS.get(name.split("_")[0], ".4f"))
    result, other = (row.get(subject, {}).get(name) for subject in ("result", beside))
    text = "-" if result is None else f"{result:{form}}"
    return text if other is None else f"{text} ({other:{form}})"


def _no_face(report: Mapping[str, Any]) -> Iterable[str]:
    """A line for each extractor that missed faces, with how many of how many pictures."""
    pairs = [pair for pairs in report["cross"].values() for pair in pairs.values()]
    for what, items in (("the clips", list(report["clips"].values())), ("portraits driven by clips", pairs)):
        of = {"source": len(items), **dict.fromkeys(("result", "real"), sum(item["measured"] for item in items))}
        for name in items[0]["no_face"]["result"] if items else ():
            missed = {subject: sum(item["no_face"][subject][name] for item in items) for subject in of}
            if any(missed.values()):
                counts = ", ".join(f"{subject} {count} of {of[subject]}" for subject, count in missed.items())
                yield f"- `{name}` found no face ({what}): {counts}"
