"""Metrics of faces beside independent implementations."""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.spatial.distance as distances
import scipy.stats
import skimage.transform
import torch
from scipy.spatial.transform import Rotation
from torchmetrics.functional import pairwise_cosine_similarity

from bench.metric_case import DRAWS, FLOAT32, FLOAT64, Array, Comparison, Draw
from cbtalk.evaluate.expression import Moments
from cbtalk.evaluate.extractors import Extractors
from cbtalk.evaluate.faces import FaceStream, Found, Reading, compare
from cbtalk.faces.euler import euler


class Named:
    """An extractor that only compares: its vectors are given."""

    name = "x"
    same_person = 1.0
    regions = {"all": slice(None)}  # noqa: RUF012


EXTRACTORS = Extractors([Named()], [Named()], {}, [Named()], [Named()])  # type: ignore[list-item]


def faces() -> Iterator[tuple[Reading, Reading]]:
    """Pairs of what extractors might find, in float32 as networks give it."""
    rng = np.random.default_rng(2)

    def reading() -> Reading:
        def found(values: Array) -> Found:
            return {"x": values.astype(np.float32)}

        return Reading(
            found(rng.uniform(0, 256, (68, 2))),
            found(rng.normal(size=128)),
            found(rng.uniform(-180, 180, 3)),
            found(rng.normal(size=52)),
        )

    return ((reading(), reading()) for _ in range(DRAWS))


def of_faces(figure: str, part: int, theirs: Callable[[Array, Array], float]) -> Draw:
    """A figure of `compare`, and another implementation of it, in float64."""
    for one, other in faces():
        first, second = (np.asarray(reading[part]["x"], dtype=np.float64) for reading in (one, other))
        yield compare(one, other, EXTRACTORS)[figure], float(theirs(first, second))


def laid_over(points: Array, target: Array) -> float:
    """Mean distance after scikit-image's similarity."""
    transform = skimage.transform.SimilarityTransform.from_estimate(points, target)
    return float(np.linalg.norm(transform(points) - target, axis=1).mean())


def mean_difference(one: Array, other: Array) -> float:
    """scipy's Manhattan distance, divided by the numbers that it sums."""
    return float(distances.cityblock(one.ravel(), other.ravel()) / one.size)


def cosine_of_torchmetrics(one: Array, other: Array) -> float:
    """For embeddings."""
    return float(pairwise_cosine_similarity(torch.from_numpy(one)[None], torch.from_numpy(other)[None]))


def cosine_of_scipy(one: Array, other: Array) -> float:
    """For embeddings."""
    return float(1 - distances.cosine(one, other))


def mean_length(one: Array, other: Array) -> float:
    """Of the differences of points."""
    return float(np.hypot(*(one - other).T).mean())


def angles(one: Array, other: Array) -> float:
    """Mean over the axes of the angle of the turn from one angle to the other, as rotations in the plane."""
    turns = Rotation.from_euler("z", one[:, None], degrees=True).inv() * Rotation.from_euler(
        "z", other[:, None], degrees=True
    )
    return float(np.degrees(turns.magnitude()).mean())


def euler_of_scipy() -> Draw:
    """Each angle of drawn rotations."""
    for rotation in Rotation.random(DRAWS, rng=3):
        yield from zip(euler(rotation.as_matrix()), rotation.as_euler("xyz", degrees=True), strict=True)


def jitter() -> Draw:
    """numpy's second difference."""
    rng = np.random.default_rng(4)
    for _ in range(DRAWS):
        track = rng.uniform(0, 256, (9, 5, 2))
        frames = iter(track)

        class Landmarks(Named):
            def landmarks(self, frame: Array, frames: Iterator[Array] = frames) -> Array:
                return next(frames)

        stream = FaceStream(Extractors([Landmarks()]))  # type: ignore[list-item]
        for number in range(len(track)):
            stream.read(number, np.zeros((256, 256, 3), dtype=np.uint8))
        yield stream.jitter.values()["jitter_x"], float(np.linalg.norm(np.diff(track, n=2, axis=0), axis=2).mean())


def openings(correlation: bool) -> Draw:
    """Standard deviation by numpy, correlation by scipy."""
    rng = np.random.default_rng(5)
    for _ in range(DRAWS):
        x, y = rng.uniform(0, 0.4, (2, 50))
        moments = Moments()
        for pair in zip(x.tolist(), y.tolist(), strict=True):
            moments.add(*pair)
        if correlation:
            yield moments.correlation(), float(scipy.stats.pearsonr(x, y).statistic)
        else:
            yield moments.deviations()[0], float(np.std(x))


FACES = [
    Comparison("landmarks", "numpy in float64", lambda: of_faces("landmarks_x", 0, mean_length), FLOAT32),
    Comparison(
        "landmarks of a region", "scikit-image's similarity", lambda: of_faces("landmarks_x_all", 0, laid_over), FLOAT32
    ),
    Comparison("AKD", "scipy's cityblock", lambda: of_faces("akd_x", 0, mean_difference), FLOAT32),
    Comparison("CSIM", "torchmetrics", lambda: of_faces("identity_x", 1, cosine_of_torchmetrics), FLOAT32),
    Comparison("CSIM", "scipy's cosine", lambda: of_faces("identity_x", 1, cosine_of_scipy), FLOAT32),
    Comparison(
        "identity distance",
        "scipy's euclidean",
        lambda: of_faces("identity_distance_x", 1, distances.euclidean),
        FLOAT32,
    ),
    Comparison("AED", "scipy's sqeuclidean", lambda: of_faces("aed_x", 1, distances.sqeuclidean), FLOAT32),
    Comparison("head pose", "scipy's rotations", lambda: of_faces("pose_x", 2, angles), FLOAT32),
    Comparison("angles of a rotation", "scipy's as_euler", euler_of_scipy, FLOAT64),
    Comparison("expression", "scipy's cityblock", lambda: of_faces("expression_x", 3, mean_difference), FLOAT32),
    Comparison("opening", "numpy's std", lambda: openings(correlation=False), FLOAT64),
    Comparison("following", "scipy's pearsonr", lambda: openings(correlation=True), FLOAT64),
    Comparison("jitter", "numpy's diff", jitter, FLOAT64),
]
