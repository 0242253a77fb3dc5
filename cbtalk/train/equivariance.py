"""The equivariance loss: keypoints must follow a known random deformation of the image."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.model.keypoints import Keypoints, coordinate_grid, inverse_2x2

LOG_OFFSET = 1e-6


class ThinPlate(NamedTuple):
    """An affine map and a thin-plate term, for each of B images (spec section 4).

    T(c) = theta c + sum over control points p of w_p d^2 log(d + 1e-6), with d = |c - p| in the 1-norm; the second
    term is one number added to x and to y.
    """

    theta: Tensor  # (B, 2, 3)
    control_params: Tensor  # (B, P * P): row major, x fastest

    @classmethod
    def random(
        cls, batch: int, *, affine: float, thin_plate: float, points: int, generator: torch.Generator
    ) -> "ThinPlate":
        """theta = I + N(0, affine), N(0, thin_plate) for each of points x points control points; on the CPU."""
        theta = torch.eye(2, 3) + affine * torch.randn(batch, 2, 3, generator=generator)
        return cls(theta, thin_plate * torch.randn(batch, points**2, generator=generator))

    def to(self, like: Tensor) -> "ThinPlate":
        """The transform in the dtype and on the device of `like`."""
        return ThinPlate(self.theta.to(like), self.control_params.to(like))

    def coordinates(self, points: Tensor) -> Tensor:
        """T at points (B or 1, N, 2) -> (B, N, 2)."""
        affine = points @ self.theta[:, :, :2].transpose(1, 2) + self.theta[:, None, :, 2]
        distance = self._offsets(points).abs().sum(-1)  # (B, N, P P)
        kernel = distance.square() * torch.log(distance + LOG_OFFSET)
        kernel = kernel.expand(len(affine), -1, -1)
        return affine + torch.einsum("bnp,bp->bn", kernel, self.control_params).unsqueeze(-1)

    def jacobian(self, points: Tensor) -> Tensor:
        """dT at points (B, N, 2) -> (B, N, 2, 2), differentiable in the points."""
        offsets = self._offsets(points)  # (B, N, P P, 2)
        distance = offsets.abs().sum(-1)
        slope = 2 * distance * torch.log(distance + LOG_OFFSET) + distance.square() / (distance + LOG_OFFSET)
        gradient = ((slope * self.control_params.unsqueeze(1)).unsqueeze(-1) * offsets.sign()).sum(2)  # (B, N, 2)
        return self.theta[:, None, :, :2] + gradient.unsqueeze(2)

    def warp(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, H) sampled at T of every pixel's coordinate; mirrored at the border, not corner aligned."""
        size = image.shape[-1]
        grid = coordinate_grid(size, image).reshape(1, -1, 2)  # one for all images, and its distances with it
        where = self.coordinates(grid).unflatten(1, (size, size))
        return F.grid_sample(image, where, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _offsets(self, points: Tensor) -> Tensor:
        side = round(self.control_params.shape[1] ** 0.5)
        return points.unsqueeze(2) - coordinate_grid(side, points).reshape(-1, 2)  # (B, N, P P, 2)


def equivariance_losses(keypoints: Keypoints, transformed: Keypoints, transform: ThinPlate) -> tuple[Tensor, Tensor]:
    """Distances of keypoints and Jacobians (B, K) from those of the transformed image, mapped back; two of ()."""
    value = (keypoints.value - transform.coordinates(transformed.value)).abs().mean()
    mapped = transform.jacobian(transformed.value) @ transformed.jacobian  # (B, K, 2, 2)
    identity = torch.eye(2, dtype=mapped.dtype, device=mapped.device)
    return value, (identity - inverse_2x2(keypoints.jacobian) @ mapped).abs().mean()
