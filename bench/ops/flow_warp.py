"""flow_warp against what the released model's own code does: interpolate, grid_sample, interpolate, multiply."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case, Inputs, Thunk
from cbtalk.ops import flow_warp
from cbtalk.reference import flow_warp as reference

# (B, C, size): the three scales at which the paper's model warps most.
SIZES = [(1, 64, 256), (1, 128, 128), (1, 256, 64)]
FLOW_SIZE = 64


def _inputs(B: int, C: int, size: int, memory_format: torch.memory_format) -> Callable[[torch.Generator], Inputs]:
    """A smooth flow of some tens of pixels about the identity, as a moving head gives."""

    def make(generator: torch.Generator) -> Inputs:
        feature = torch.randn(B, C, size, size, generator=generator).contiguous(memory_format=memory_format)
        line = torch.linspace(-1, 1, FLOW_SIZE)
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)  # (h, w, 2)
        bumps = torch.randn(B, 2, 8, 8, generator=generator) * 0.1
        motion = F.interpolate(bumps, size=(FLOW_SIZE, FLOW_SIZE), mode="bicubic").permute(0, 2, 3, 1)
        occlusion = torch.rand(B, 1, FLOW_SIZE, FLOW_SIZE, generator=generator)
        return feature, (grid + motion).contiguous(), occlusion

    return make


def _eager(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
    size = feature.shape[2:]
    grid = F.interpolate(flow.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    warped = F.grid_sample(feature, grid, align_corners=True)
    return warped * F.interpolate(occlusion, size=size, mode="bilinear", align_corners=True)


def _forward(op: Callable[..., Tensor]) -> Callable[..., Thunk]:
    return lambda *inputs: lambda: op(*inputs)


def _forward_backward(op: Callable[..., Tensor]) -> Callable[..., Thunk]:
    """[output, gradients of feature, flow and occlusion] for the output's own values as its gradient."""

    def prepare(*inputs: Tensor) -> Thunk:
        leaves = [x.detach().requires_grad_() for x in inputs]
        grad_output = torch.randn_like(inputs[0])

        def run() -> list[Tensor]:
            out = op(*leaves)
            return [out, *torch.autograd.grad(out, leaves, grad_output)]

        return run

    return prepare


def _check(inputs: Inputs, result: object) -> str | None:
    """The output (and no more: the gradients have their tests) within what float32 positions allow."""
    out = result[0] if isinstance(result, list) else result
    assert isinstance(out, Tensor)
    exact = reference.flow_warp(*(x.double() for x in inputs))
    error = (out.double() - exact).abs().max().item()
    bound = 2e-6 * max(inputs[0].shape[2:]) * inputs[0].abs().max().item()
    return None if error <= bound else f"error {error:.1e} above {bound:.1e}"


def cases() -> list[Case]:
    """Each size in both memory formats, forward and forward + backward."""
    made = []
    for B, C, size in SIZES:
        for layout, memory_format in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
            for kind, timed in (("fwd", _forward), ("fwd+bwd", _forward_backward)):
                made.append(
                    Case(
                        name=f"({B}, {C}, {size}, {size}) {layout} {kind}",
                        make_inputs=_inputs(B, C, size, memory_format),
                        ours=timed(flow_warp),
                        peers={"interpolate + grid_sample": timed(_eager)},
                        check=_check,
                    )
                )
    return made
