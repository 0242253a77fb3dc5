"""The GPU benchmark's cases in batches of one, on the CPU: their inputs, references and peers fit together."""

import pytest
import torch

from bench.case import Case, Setting
from bench.cases import cases
from bench.gpu import BATCH, DTYPES, order, wrong
from bench.peers import COMPILED
from cbtalk.doctor import GPU_BACKENDS
from cbtalk.ops.examples import ON_GPU
from tests.helpers.tiers import slow

NAMES = [example.name for example in ON_GPU]
CASES = [case for dtype in DTYPES for case in cases(Setting("cuda", dtype), NAMES)]
FIRST = list({case.op: case for case in reversed(CASES)}.values())  # of each op
NOT_ON_A_CPU = ("SDPA efficient", "SDPA cuDNN")


@pytest.mark.parametrize(
    "case", [*FIRST, *slow(*(case for case in CASES if case not in FIRST))], ids=lambda case: case.name
)
def test_ours_the_reference_and_the_peers_give_the_same(case: Case) -> None:
    inputs = case.make_inputs(torch.Generator().manual_seed(0))
    if inputs[0].numel() > 1 << 20:
        pytest.skip("a large image, the same code as a small one")
    assert wrong(case, inputs, "auto") is None
    judge = case.judge(inputs)
    assert judge(case.ours(*inputs)()) is None
    for name, peer in case.peers.items():
        if not isinstance(peer, str) and name not in NOT_ON_A_CPU:
            assert judge(peer(*inputs)()) is None, name


def test_compiled_peers_come_last_and_every_op_is_there() -> None:
    found = list(order(NAMES, BATCH))
    sides = [side for _, _, side in found]
    assert COMPILED not in sides[: sides.index(COMPILED)] and set(sides[sides.index(COMPILED) :]) == {COMPILED}
    assert {(dtype, case.op, side) for dtype, case, side in found if side in GPU_BACKENDS} == {
        (dtype, name, backend) for dtype in DTYPES for name in NAMES for backend in GPU_BACKENDS
    }
