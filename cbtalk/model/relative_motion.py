"""Driving a different person: the driving motion relative to its first frame, moved onto the source's keypoints."""

import torch
from torch import Tensor

from cbtalk.errors import InputError
from cbtalk.model.keypoints import Keypoints, inverse_2x2


def relative_keypoints(
    source: Keypoints, driving: Keypoints, initial: Keypoints, *, adapt_scale: bool = False, strength: float = 1.0
) -> Keypoints:
    """The source's keypoints, moved as `driving` moved since `initial`.

    Args:
        source: (1 or B, K) keypoints of the source.
        driving: (B, K) keypoints of the driving frames.
        initial: (1 or B, K) keypoints of the driving frame whose pose is the source's.
        adapt_scale: multiply the displacement by `hull_scale(source, initial)`.
        strength: from 0, the source as it is, to 2, twice the motion: multiplies the displacement, and raises the
            change of the jacobians to this `power`.

    Raises:
        InputError: `adapt_scale` where the initial keypoints span no area.
    """
    displacement = driving.value - initial.value
    if adapt_scale:
        displacement = displacement * hull_scale(source, initial)[:, None, None]
    change = power(driving.jacobian @ inverse_2x2(initial.jacobian), strength)
    return Keypoints(source.value + displacement * strength, change @ source.jacobian)


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Matrices (..., 2, 2) to the power of 0 to 2: exact at 0, 1 and 2, straight in between.

    A power by logarithm or eigenvalues is not real for some matrices and jumps where eigenvalues meet. This one is
    finite and continuous for all, and turns a positive eigenvalue into a positive one: what is not folded is not folded
    by it.
    """
    if exponent <= 1:
        identity = torch.eye(2, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
        return torch.lerp(identity, matrix, exponent)
    return torch.lerp(matrix, matrix @ matrix, exponent - 1)


def hull_scale(source: Keypoints, initial: Keypoints) -> Tensor:
    """(1 or B,): square root of the ratio of the keypoints' convex-hull areas, source over initial driving frame."""
    initial_area = hull_areas(initial.value)
    if not bool((initial_area > 0).all()):
        raise InputError("cannot adapt the scale: the keypoints of the first driving frame span no area")
    return (hull_areas(source.value) / initial_area).sqrt()


def hull_areas(points: Tensor) -> Tensor:
    """Areas (B,) of the convex hulls of points (B, K, 2)."""
    areas = [_hull_area([(x, y) for x, y in one]) for one in points.detach().double().cpu().tolist()]
    return torch.tensor(areas, dtype=points.dtype, device=points.device)


Point = tuple[float, float]


def _hull_area(points: list[Point]) -> float:
    ordered = sorted(points)
    hull = _half_hull(ordered) + _half_hull(ordered[::-1])
    following = hull[1:] + hull[:1]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(hull, following, strict=True))) / 2


def _half_hull(ordered: list[Point]) -> list[Point]:
    """One side of the hull (Andrew's monotone chain), without its last point."""
    chain: list[Point] = []
    for point in ordered:
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return chain[:-1]


def _turn(a: Point, b: Point, c: Point) -> float:
    """Positive where a, b, c turn left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
