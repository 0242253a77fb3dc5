"""The backend that an op takes, the reason it gives for the others, and Triton's ops as the compiler sees them."""

import importlib.metadata
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from cbtalk import _native, _triton
from cbtalk.errors import BackendError
from cbtalk.ops.examples import IN_CUDA, ON_GPU, named
from tests.kernels.where import needs_gpu

needs_triton = pytest.mark.skipif(_triton.why_not_triton() is not None, reason=str(_triton.why_not_triton()))
interpreted = pytest.mark.skipif(
    _triton.why_not_triton(torch.empty(0)) is not None, reason="Triton's interpreter is not chosen, or not installed"
)


def tensors_of(name: str, batch: int = 2) -> tuple[Tensor, ...]:
    """Small inputs of an op."""
    sizes = {**named(name).small, "batch": batch}
    return named(name).inputs("cpu", **sizes)


def on_gpu(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """A tensor without data that says it is on a GPU, for a torch without CUDA as well."""
    meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return FakeTensor(mode, meta, torch.device("cuda:0"))


every_op = pytest.mark.parametrize("name", [example.name for example in ON_GPU])
every_op_in_cuda = pytest.mark.parametrize("name", [example.name for example in IN_CUDA])


def call(name: str, tensors: tuple[Tensor, ...], backend: str) -> Tensor:
    return named(name).op(*tensors, backend=backend)


@every_op
def test_auto_on_the_cpu_never_takes_a_gpu_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tensors_of(name)
    expected = call(name, tensors, "reference")
    monkeypatch.setattr(_triton, "_reason", "taken by mistake")
    monkeypatch.setattr(_native, "_cuda_reason", "taken by mistake")
    torch.testing.assert_close(call(name, tensors, "auto"), expected, rtol=1e-4, atol=1e-5)


@every_op
def test_triton_refuses_cpu_tensors_outside_its_interpreter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "_INTERPRETED", False)
    monkeypatch.setattr(_triton, "_reason", None)
    with pytest.raises(BackendError, match="'triton' cannot run here: it takes tensors on a GPU, not on cpu"):
        call(name, tensors_of(name), "triton")


@every_op
def test_a_missing_triton_is_named_with_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "_reason", "triton is not installed: pip install 'cbtalk[gpu]'")
    with pytest.raises(BackendError, match=r"triton is not installed: pip install 'cbtalk\[gpu\]'"):
        call(name, tensors_of(name), "triton")


def test_triton_is_found_missing_or_too_old_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"3.6.0": None, "3.10.1": None, "4.0": None, "3.5.1": "too old", "2.3.0": "too old"}
    for version, reason in versions.items():
        monkeypatch.setattr(importlib.metadata, "version", lambda _, found=version: found)
        found = _triton._installed()
        assert found is None if reason is None else reason in str(found), version

    def missing(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert "not installed" in str(_triton._installed())


@every_op_in_cuda
def test_a_missing_cuda_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_cuda_reason", "libcbtalk_cuda.so is not beside the package")
    with pytest.raises(BackendError, match=r"'cuda' cannot run here: libcbtalk_cuda\.so is not beside the package"):
        call(name, tensors_of(name), "cuda")


@every_op_in_cuda
def test_cuda_refuses_cpu_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"backend 'cuda' cannot run here: ."):  # with whatever reason holds here
        call(name, tensors_of(name), "cuda")
    monkeypatch.setattr(_native, "_cuda_reason", None)
    with pytest.raises(BackendError, match="'cuda' cannot run here: it takes tensors on a GPU, not on cpu"):
        call(name, tensors_of(name), "cuda")


@every_op
def test_an_unknown_backend_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(BackendError, match=r"known: auto, .*triton"):
        call(name, tensors_of(name), "tensorrt")


@interpreted
@every_op
def test_float64_is_refused_by_name_and_served_by_auto(name: str) -> None:
    tensors = tuple(tensor.double() for tensor in tensors_of(name))
    with pytest.raises(BackendError, match=r"'triton' cannot run here: .*float32"):
        call(name, tensors, "triton")
    assert call(name, tensors, "auto").dtype == torch.float64


@interpreted
def test_a_layout_without_a_kernel_is_refused() -> None:
    x, weight, bias = tensors_of("group_norm")
    with pytest.raises(BackendError, match="channels_last"):
        call("group_norm", (x.contiguous(), weight, bias), "triton")


@needs_triton
@every_op
def test_tensors_on_two_devices_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_cuda_reason", None)
    first, *others = tensors_of(name)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors = (on_gpu(mode, first), *others)
        for backend in {"cuda", "triton"} & set(named(name).backends):
            monkeypatch.setattr(_triton, "_INTERPRETED", False)
            with pytest.raises(BackendError, match="not on cpu"):
                call(name, tensors, backend)


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=[needs_triton, needs_gpu])]
)
@every_op
def test_fake_tensors_take_the_triton_op(name: str, device: str) -> None:
    """The shapes, dtypes, layouts and devices that a compiler sees, without a kernel run."""
    tensors = tuple(tensor.to(device) for tensor in tensors_of(name))
    real = call(name, tensors, "triton")
    with FakeTensorMode() as mode:
        fake = call(name, tuple(mode.from_tensor(tensor) for tensor in tensors), "triton")
    assert isinstance(fake, FakeTensor)
    assert (fake.shape, fake.dtype, fake.device) == (real.shape, real.dtype, real.device)
    assert fake.stride() == real.stride()


@interpreted
@every_op
def test_compiles_whole_with_dynamic_shapes(name: str) -> None:
    def step(*tensors: Tensor) -> Any:
        return call(name, tensors, "triton")

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="eager")
    for batch in (2, 3):
        leaves = [tensor.requires_grad_() for tensor in tensors_of(name, batch)]
        ours, expected = compiled(*leaves), step(*leaves)
        torch.testing.assert_close(ours, expected)
        grad = torch.randn_like(expected)
        for mine, theirs in zip(
            torch.autograd.grad(ours, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
        ):
            torch.testing.assert_close(mine, theirs)
