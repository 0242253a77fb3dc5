"""The benchmark's cases of the ops under pytest-benchmark: one round each, or all with --benchmark-only."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.case import Case, Setting
from bench.cases import cases

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = cases(Setting(DEVICE))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_op(case: Case, benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    """Right, then timed."""
    inputs = case.make_inputs(torch.Generator(DEVICE).manual_seed(0))
    ours = case.ours(*inputs)
    benchmark.group = case.op
    in_full = request.config.getoption("benchmark_only")
    result = benchmark(ours) if in_full else benchmark.pedantic(ours, rounds=1)
    assert case.judge(inputs)(result) is None
