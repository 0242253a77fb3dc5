"""Every registered op is in the list of ops, and every op of the list is wherever a person has to enter it."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

import cbtalk
from bench import gpu_check, readme
from bench.calls import measure_calls
from bench.cases import OPS
from cbtalk import ops
from cbtalk.ops.examples import EXAMPLES, Example
from tests.kernels import test_emulated, test_on_gpu, test_planted

ROOT = Path(__file__).parents[2]
FILES = ("cbtalk/ops/_{}.py", "cbtalk/reference/{}.py", "csrc/cpu/{}.cpp", "csrc/torch/{}.cpp", "tests/ops/test_{}.py")
GPU = ("cuda", "triton")
CUDA_FILES = ("csrc/cuda/{}.cu", "csrc/torch/{}_cuda.cpp", "csrc/tests/test_cuda_{}.cpp")
TRITON_FILES = ("kernels/{}.py", "tests/kernels/test_{}.py", "tests/kernels/{}_builds.py")


def registered() -> set[str]:
    """The ops under torch.ops.cbtalk, without their backward passes and twins."""
    names = (name for name in torch._C._dispatch_get_all_op_names() if name.startswith("cbtalk::"))
    return {re.sub(r"cbtalk::(\w+?)(_backward)?(_triton|_emulated)?(\.\w+)?$", r"\1", name) for name in names}


def shown_in_readme() -> set[str]:
    table = (ROOT / "README.md").read_text().split("| op | what it does |")[1].split("\n\n")[0]
    return set(re.findall(r"`(\w+)`", table))


def lists() -> Iterator[tuple[str, set[str]]]:
    """Each place that names the public ops, and the names there."""
    yield "cbtalk.ops.examples", {example.name for example in EXAMPLES}
    yield "cbtalk.ops", set(dir(ops))
    yield "cbtalk", set(cbtalk.__all__)
    yield "README's table", shown_in_readme()
    yield "README's figures", {case.op for case in readme.shown()}
    yield "bench/ops", set(OPS) & {path.stem for path in (ROOT / "bench" / "ops").glob("*.py")}
    yield "bench.calls", {name.split(",")[0] for name in measure_calls(rounds=1, calls=1)}


def kernel_lists(tmp_path: Path) -> Iterator[tuple[str, set[str]]]:
    """Each place that names the ops with GPU kernels, by the base names of their files."""
    checked = {part for step in gpu_check.steps(tmp_path) for part in step.command}
    yield "bench.gpu_check", {name for name in bases(*GPU) if any(f"test_{name}" in part for part in checked)}
    yield "test_planted.FAULTS", {op for op, *_ in test_planted.FAULTS.values()}
    yield "test_on_gpu.LARGE", set(test_on_gpu.LARGE)


def cuda_lists() -> Iterator[tuple[str, set[str]]]:
    """Each place that names the ops with kernels in CUDA C++."""
    yield "test_emulated.BASES", set(test_emulated.BASES)
    yield "test_emulated.FAULTS", {op for op, *_ in test_emulated.FAULTS.values()}


def bases(*backends: str) -> set[str]:
    """Of the ops that have one of the backends."""
    return {example.base for example in EXAMPLES if set(backends) & set(example.backends)}


def missing(wanted: set[str], found: Iterable[tuple[str, set[str]]]) -> dict[str, set[str]]:
    """The places that lack some of the names, and which."""
    return {place: wanted - names for place, names in found if wanted - names}


def test_every_registered_op_is_everywhere() -> None:
    assert missing(registered(), lists()) == {}
    assert missing({example.name for example in EXAMPLES}, lists()) == {}


def test_every_op_with_gpu_kernels_is_everywhere(tmp_path: Path) -> None:
    assert missing(bases(*GPU), kernel_lists(tmp_path)) == {}
    assert missing(bases("cuda"), cuda_lists()) == {}


def test_an_op_that_nobody_entered_is_missed_everywhere(tmp_path: Path) -> None:
    library = torch.library.Library("cbtalk", "FRAGMENT")
    library.define("planted_triton(Tensor x) -> Tensor")
    try:
        assert missing(registered(), lists()) == {place: {"planted"} for place, _ in lists()}
    finally:
        library._destroy()
    assert "planted" not in registered()
    found = [*kernel_lists(tmp_path), *cuda_lists()]
    assert missing({*bases("cuda"), "planted"}, found) == {place: {"planted"} for place, _ in found}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_files_of_an_op_bear_its_base_name(example: Example) -> None:
    wanted = [*FILES, *(CUDA_FILES if "cuda" in example.backends else ())]
    wanted += TRITON_FILES if "triton" in example.backends else ()
    for file in wanted:
        assert (ROOT / file.format(example.base)).exists(), file


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_result_depends_on_every_input(example: Example) -> None:
    inputs = example.inputs("cpu", **example.small)
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    for gradient in torch.autograd.grad(example.reference(*leaves).square().sum(), leaves):
        assert gradient.abs().max() > 0
