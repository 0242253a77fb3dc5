"""The GPU benchmark's cases, made small and run on the CPU: their shapes, references and peers fit together."""

import pytest
import torch

from bench import gpu_cases
from bench.ceilings import Ceilings
from bench.gpu import COMPILED, gradients, order

CEILINGS = Ceilings(copy=4e12, float32=5e13, tf32=4e14, bfloat16=8e14, exponentials=4e12)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DEVICE", "cpu"), ("BATCH", 1), ("TOKENS", 64)):
        monkeypatch.setattr(gpu_cases, name, value)


@pytest.mark.parametrize("number", range(len(gpu_cases.cases())))
def test_ours_the_reference_and_the_peers_give_the_same(number: int) -> None:
    case = gpu_cases.cases()[number]
    inputs = case.make_inputs()
    if inputs[0].numel() > 1 << 20:
        pytest.skip("a large picture, the same code as a small one")
    ours, exact = gradients(case.run, inputs), gradients(case.reference, inputs)
    peers = [gradients(peer, inputs) for name, peer in case.peers.items() if name != COMPILED]
    for found in (ours, *peers):
        for one, truth in zip(found, exact, strict=True):
            scale = truth.float().abs().max()
            assert (one.float() - truth.float()).abs().max() <= (0.05 if case.dtype == torch.bfloat16 else 1e-4) * scale
    assert 0 < case.forward_floor(CEILINGS) < case.backward_floor(CEILINGS) * 100


def test_compiled_peers_come_last() -> None:
    sides = [side for _, side in order(gpu_cases.cases())]
    assert COMPILED not in sides[: sides.index(COMPILED)] and set(sides[sides.index(COMPILED) :]) == {COMPILED}
