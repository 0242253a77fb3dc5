"""Figures averaged, and as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Figures = dict[str, dict[str, float]]  # by subject and name

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
    "fid": "FID",
    "fid_source": "FID against sources",
}
PREFIXES = {
    "akd_": "AKD ",
    "aed_": "AED ",
    "identity_distance_": "identity distance ",
    "identity_same_": "same identity ",
    "identity_": "CSIM ",
    "pose_": "head pose ",
    "expression_": "expression ",
}
KINDS = {  # of figures, by the names of the networks that they need
    "LPIPS": ("lpips_alex", "lpips_vgg"),
    "FID": ("fid",),
    "landmarks and AKD": ("mediapipe_mesh", "dlib_5", "dlib_68", "landmarks"),
    "CSIM and AED": ("dlib_resnet", "arcface", "openface"),
    "head pose": ("head_pose",),
    "expression": ("expression",),
}
FORMATS = {"l1": ".4f", "psnr": ".2f", "colour": ".2f", "jitter": ".2f", "landmarks": ".2f"}
FORMATS |= {"opening": ".3f", "following": ".2f", "akd": ".2f", "pose": ".2f", "expression": ".3f", "fid": ".2f"}

SAME_IDENTITY = (
    "`{weights}` on `{data}` at {size} px: the first frame animated by the rest, absolute motion (repeating the first "
    "frame in brackets). Colour: distances of the means, and of the standard deviations, in Lab. FID against sources: "
    "as the released code has it. {every}"
)
FACES = (
    "The faces of the same clips, against those of the real frames; in brackets those of the first frame, repeated. "
    "Landmarks: mean distance in pixels of a 256 px image; of mouth and eyes after laying one face over the other "
    "(shift, turn, scale), which leaves the expression. AKD: mean difference of their coordinates. CSIM, identity "
    "distance, AED: cosine, Euclidean distance and its square, of embeddings; same identity: the share of frames taken "
    "for the same person. Head pose: degrees. Opening of mouth and eyes: standard deviation in distances of the "
    "pupils, in brackets that of the real clip; following: its correlation with the real one, where that moves. "
    "Jitter: mean second difference of the landmarks in pixels, at 25 frames a second, in brackets that of the real "
    "clip."
)
CROSS = (
    "{cross}, relative motion; means over clips. Identity: against the portrait, in brackets that of the driving "
    "person against it. Head pose and expression: against the driving clip. Jitter: in brackets that of the driving "
    "clip. FID: against the driving clips' frames, in brackets that of the portraits themselves."
)


def mean_figures(items: Sequence[Mapping[str, Any]]) -> Figures:
    """The mean of each figure of each subject over the items that have it."""
    result: Figures = {}
    for subject in SUBJECTS:
        held = [item[subject] for item in items if subject in item]
        names = dict.fromkeys(name for figures in held for name in figures)
        result[subject] = {name: float(np.mean([f[name] for f in held if name in f])) for name in names}
    return {subject: figures for subject, figures in result.items() if figures}


def with_fid(means: Figures, fid: Figures) -> Figures:
    """Means, and the FID of all images."""
    subjects = dict.fromkeys([*means, *fid])
    return {subject: {**means.get(subject, {}), **fid.get(subject, {})} for subject in subjects}


def left_out(absent: Mapping[str, str]) -> str:
    """A line about the figures that are left out, and why, from the reasons by the names of their networks."""
    if not _for_one_reason(absent):
        return f"figures left out, for want of a network (the report has the reasons): {', '.join(absent)}"
    kinds = [kind for kind, names in KINDS.items() if set(names) & set(absent)]
    return f"left out: {', '.join(kinds)}: {next(iter(absent.values()))}; docs/metrics.md lists the networks they need"


def _for_one_reason(absent: Mapping[str, str]) -> bool:
    return len(absent) > 1 and len(set(absent.values())) == 1


def markdown(report: Mapping[str, Any]) -> str:
    """The report of `evaluate_weights` as Markdown tables."""
    every = report["every"]
    how = "" if every == 1 else f"LPIPS, FID and faces: three frames in a row out of every {3 * every}."
    how += f" The motion is smoothed with a time constant of {report['smooth']:g} s." if report["smooth"] else ""
    parts = list(_same_identity(report, how.strip())) if report["clips"] else []
    if report["cross"]:
        portraits = {name: mean_figures(list(pairs.values())) for name, pairs in report["cross"].items()}
        rows = {**portraits, "mean": report["cross_mean"]}
        cross = "Each portrait driven by each clip"
        if report["pairs"] is not None:
            cross = (
                f"`{report['weights']}` on `{report['data']}` at {report['size']} px: the pairs of `{report['pairs']}`"
            )
        columns = list(report["cross_mean"].get("result", {}))
        parts += [CROSS.format(cross=cross), _table("portrait", rows, columns, "real")]
    notes = "\n".join(_notes(report))
    return "\n\n".join([*parts, *([notes] if notes else [])]) + "\n"


def _same_identity(report: Mapping[str, Any], how: str) -> Iterator[str]:
    rows = {**report["clips"], "mean": report["mean"]}
    names = list(report["mean"]["result"])
    yield SAME_IDENTITY.format(**{**report, "every": how}).strip()
    yield _table("clip", rows, [name for name in names if name in NAMES], "repeat")
    if faces := [name for name in names if name not in NAMES]:
        yield FACES
        yield _table("clip", rows, faces, "repeat")


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    if report["missing"]:
        yield f"- not done: {', '.join(report['missing'])}"
    yield from (f"- failed: {name}: {reason}" for name, reason in report["failed"].items())
    yield from (f"- {name}: {text}" for name, texts in report["warnings"].items() for text in texts)
    yield from _no_face(report)
    for name, count in report["fid"].items():
        if count["images"] <= count["numbers"]:
            few = f"{count['images']} images for {count['numbers']} numbers each"
            yield f"- FID ({name}): {few}; so few make it too large, so compare it with that of as many only"
    if _for_one_reason(report["absent"]):
        yield f"- {left_out(report['absent'])}"
    else:
        yield from (f"- `{name}` is absent: {why}" for name, why in report["absent"].items())


def _table(first: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str], beside: str) -> str:
    lines = [f"| {' | '.join([first, *(_label(name) for name in columns)])} |"]
    lines.append(f"| {' | '.join(['---'] * (1 + len(columns)))} |")
    for name, row in rows.items():
        cells = (_cell(row, column, "real" if column.startswith(OF_REAL) else beside) for column in columns)
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _label(name: str) -> str:
    """A figure's name as a heading."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return NAMES.get(name) or PREFIXES.get(prefix, "") + name.removeprefix(prefix)


def _cell(row: Mapping[str, Any], name: str, beside: str) -> str:
    """A figure of the result, the other subject's in brackets; a dash where no face was found."""
    form = FORMATS.get(name, FORMATS.get(name.split("_")[0], ".4f"))
    result, other = (row.get(subject, {}).get(name) for subject in ("result", beside))
    text = "-" if result is None else f"{result:{form}}"
    return text if other is None else f"{text} ({other:{form}})"


def _no_face(report: Mapping[str, Any]) -> Iterator[str]:
    """A line for each extractor that missed faces, with how many of how many images."""
    pairs = [pair for pairs in report["cross"].values() for pair in pairs.values()]
    for what, items in (("the clips", list(report["clips"].values())), ("portraits driven by clips", pairs)):
        of = {"source": len(items), **dict.fromkeys(("result", "real"), sum(item["measured"] for item in items))}
        for name in items[0]["no_face"]["result"] if items else ():
            missed = {subject: sum(item["no_face"][subject][name] for item in items) for subject in of}
            if any(missed.values()):
                counts = ", ".join(f"{subject} {count} of {of[subject]}" for subject, count in missed.items())
                yield f"- `{name}` found no face ({what}): {counts}"
