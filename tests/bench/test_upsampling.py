import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.upsampling import Layer, table
from cbtalk.model.blocks import Conv3x3
from cbtalk.model.upsampling import by_phases, phase_weight


@pytest.mark.parametrize("sizes", [(6, 5, 8, 9), (3, 4, 2, 2)])
def test_operations_are_those_of_the_convolutions(sizes: tuple[int, int, int, int]) -> None:
    layer, x = Conv3x3(*sizes[:2], upsample=True), torch.randn(1, sizes[0], *sizes[2:])
    weight, bias = layer.weight.detach(), layer.get_parameter("bias").detach()
    counts = []
    for convolve in (lambda: layer(x), lambda: by_phases(x, phase_weight(weight), bias)):
        with FlopCounterMode(display=False) as counter:
            convolve()
        counts.append(counter.get_total_flops())
    assert list(Layer(*sizes).operations()) == counts


def test_the_frame_has_every_layer() -> None:
    lines = list(table("mini"))
    assert lines[0].startswith("| layer |") and lines[-1].startswith("| a frame |")
    assert sum("net_g.generator" in line for line in lines) >= 2
    assert sum("(not taken)" in line for line in lines) >= 1
