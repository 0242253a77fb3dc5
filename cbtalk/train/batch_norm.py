"""Batch normalisation over all processes of a run, on CPUs too, where torch.nn.SyncBatchNorm has none."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.model.blocks import full_precision
from cbtalk.nn.processes import place
from cbtalk.train import exchange


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose statistics, in training, are those of all processes, with as many images each."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and dtype. Raises LostProcess."""
        if not self.training:
            return super().forward(x)
        mean, variance = _statistics(x)
        self._follow(mean, variance, x.numel() // x.shape[1])
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, self.eps)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.momentum is not None and self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        count *= place()[1]
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


def synchronise(network: nn.Module) -> None:
    """Puts a synchronised one, with the same parameters and buffers, in the place of every nn.BatchNorm2d within."""
    for name, child in list(network.named_children()):
        synchronise(child)
        if type(child) is nn.BatchNorm2d:
            norm = SynchronisedBatchNorm2d(child.num_features, child.eps, child.momentum)
            norm.weight, norm.bias = child.weight, child.bias
            for buffer, value in child.named_buffers():
                norm.register_buffer(buffer, value)
            setattr(network, name, norm.train(child.training))


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of each channel over all processes, in float32 at least."""
    variance, mean = torch.var_mean(full_precision(x), dim=(0, 2, 3), correction=0)
    own = torch.stack([mean, variance]).double()  # squares about zero are exact enough in float64
    own[1] += own[0].square()
    all_mean, all_square = exchange.mean(own)
    return all_mean.to(mean.dtype), (all_square - all_mean.square()).to(mean.dtype)


class _Normalise(torch.autograd.Function):
    """Normalisation whose gradient knows that every process's images moved the statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        as_constants = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        of_x, of_weight, of_bias = as_constants
        through = exchange.mean(torch.stack([of_weight, of_bias])) / (x.numel() // x.shape[1])
        factor = torch.rsqrt(variance + ctx.eps)
        slope = through[0] * weight * factor.square()
        offset = through[1] * weight * factor - slope * mean
        of_x = of_x - torch.addcmul(offset.view(-1, 1, 1), x, slope.view(-1, 1, 1)).to(of_x.dtype)
        return of_x, of_weight, of_bias, None, None, None
