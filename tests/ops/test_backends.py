import contextlib

import pytest
import torch
from torch.autograd import forward_ad

from cbtalk.errors import BackendError
from cbtalk.ops.backends import choose, use_backend
from cbtalk.ops.examples import named
from cbtalk.ops.kernel_op import KernelOp

X = torch.zeros(1)


def no_float16(x: torch.Tensor) -> str | None:
    return "float16 is not among its dtypes"


def runs(x: torch.Tensor) -> str | None:
    return None


def never_asked(x: torch.Tensor) -> str | None:
    raise AssertionError("asked although another backend runs")


WHY_NOT = {"cpp": no_float16, "triton": runs}


def test_auto_takes_the_first_without_a_reason_and_asks_no_further() -> None:
    assert choose("auto", WHY_NOT, X) == "reference"
    assert choose("auto", {"cpp": runs, "triton": never_asked}, X) == "cpp"
    on_gpu = torch.zeros(1, device="meta")
    assert choose("auto", {"cpp": never_asked, "cuda": no_float16, "triton": runs}, on_gpu) == "triton"


def test_triton_comes_first_on_a_gpu_where_an_op_says_so() -> None:
    on_gpu = torch.zeros(1, device="meta")
    assert choose("auto", {"cuda": runs, "triton": never_asked}, on_gpu) == "cuda"
    assert choose("auto", {"cuda": never_asked, "triton": runs}, on_gpu, triton_first=True) == "triton"
    assert choose("auto", {"cuda": runs, "triton": no_float16}, on_gpu, triton_first=True) == "cuda"


@pytest.mark.parametrize(
    ("name", "sizes", "dtype", "first"),
    [
        ("nearest_code", {}, torch.float32, "triton"),
        ("vector_quantize", {}, torch.bfloat16, "triton"),
        ("flow_warp", {}, torch.bfloat16, "cuda"),
        ("codebook_attention", {"head": 32}, torch.bfloat16, "triton"),
        ("codebook_attention", {"head": 16}, torch.bfloat16, "cuda"),
        ("self_attention", {"head": 32}, torch.float16, "triton"),
        ("self_attention", {"head": 32}, torch.float32, "cuda"),
        ("group_norm", {}, torch.float32, "triton"),
    ],
)
def test_the_order_on_a_gpu_is_that_of_the_counts(
    name: str, sizes: dict[str, int], dtype: torch.dtype, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both backends on; docs/decisions/gpu_predictions.md."""
    example = named(name)
    for backend in {"cuda", "triton"} & set(example.backends):
        monkeypatch.setitem(example.module.WHY_NOT, backend, lambda *arguments: None)
    taken: list[str] = []
    for variant in (op for op in vars(example.module).values() if isinstance(op, KernelOp)):
        monkeypatch.setattr(variant, "_variants", _Noted(taken))
    tensors = example.make(torch.Generator(), dtype, **{**example.small, **sizes})
    with contextlib.suppress(_Taken):
        example.op(*(x.to("meta") for x in tensors))
    assert taken == [first]


class _Taken(Exception):
    pass


class _Noted(dict[str, object]):
    """The variants of an op: notes the backend asked for, and runs nothing."""

    def __init__(self, taken: list[str]) -> None:
        super().__init__()
        self._taken = taken

    def __getitem__(self, backend: str) -> object:
        self._taken.append(backend)
        raise _Taken


def test_a_backend_asked_for_by_name_runs_or_raises_its_reason() -> None:
    assert choose("reference", WHY_NOT, X) == "reference"
    assert choose("triton", WHY_NOT, X) == "triton"
    with pytest.raises(BackendError, match="float16 is not among its dtypes"):
        choose("cpp", WHY_NOT, X)


def test_an_unknown_backend_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match="known: auto, cpp, reference, triton"):
        choose("cuda", WHY_NOT, X)


def test_a_forced_backend_replaces_auto_only_and_ends_with_its_block() -> None:
    with use_backend("triton"):
        assert choose("auto", WHY_NOT, X) == "triton"
        assert choose("reference", WHY_NOT, X) == "reference"
        with pytest.raises(RuntimeError), use_backend("reference"):
            raise RuntimeError
        assert choose("auto", WHY_NOT, X) == "triton"
    assert choose("auto", WHY_NOT, X) == "reference"


def test_a_forced_backend_that_cannot_run_raises_its_reason() -> None:
    with use_backend("cpp"), pytest.raises(BackendError, match="float16"):
        choose("auto", WHY_NOT, X)


def test_forward_mode_goes_to_the_reference_and_is_the_reason_against_kernels() -> None:
    with forward_ad.dual_level():
        assert choose("auto", {"cpp": runs}, X) == "reference"
        with pytest.raises(BackendError, match="no forward-mode derivative"):
            choose("cpp", {"cpp": runs}, X)
