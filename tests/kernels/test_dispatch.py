"""Which backend an op takes, the reason it gives for the others, and what Triton's ops look like to the compiler."""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from cbtalk import _native, _triton
from cbtalk.errors import BackendError
from cbtalk.ops import codebook_attention, flow_warp, group_norm, nearest_code, self_attention, vector_quantize
from tests.kernels.where import needs_gpu

needs_triton = pytest.mark.skipif(_triton.why_not_triton() is not None, reason=str(_triton.why_not_triton()))
interpreted = pytest.mark.skipif(
    _triton.why_not_triton(torch.empty(0)) is not None, reason="Triton's interpreter is not chosen, or not installed"
)


def _nearest_code(z: Tensor, codebook: Tensor, backend: str) -> Tensor:
    return nearest_code(z, codebook, backend=backend).distances


def _vector_quantize(z: Tensor, codebook: Tensor, backend: str) -> Tensor:
    return vector_quantize(z, codebook, backend=backend).codes


def _flow_warp(feature: Tensor, flow: Tensor, occlusion: Tensor, backend: str) -> Tensor:
    return flow_warp(feature, flow, occlusion, backend=backend)


def _codebook_attention(query: Tensor, key: Tensor, value: Tensor, backend: str) -> Tensor:
    return codebook_attention(query, key, value, heads=2, backend=backend)


def _self_attention(query: Tensor, key: Tensor, value: Tensor, backend: str) -> Tensor:
    return self_attention(query, key, value, heads=2, backend=backend)


def _group_norm(x: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
    return group_norm(x, weight, bias, groups=2, eps=1e-6, silu=True, backend=backend)


def _pictures(batch: int) -> Tensor:
    return torch.randn(batch, 8, 5, 6).contiguous(memory_format=torch.channels_last)


# Each public op with its tensors for a batch of a given size.
OPS: dict[str, tuple[Callable[..., Tensor], Callable[[int], tuple[Tensor, ...]]]] = {
    "nearest_code": (_nearest_code, lambda n: (torch.randn(n * 7, 16), torch.randn(24, 16))),
    "vector_quantize": (_vector_quantize, lambda n: (torch.randn(n * 7, 16), torch.randn(24, 16))),
    "flow_warp": (_flow_warp, lambda n: (_pictures(n), torch.rand(n, 4, 4, 2) * 2 - 1, torch.rand(n, 1, 4, 4))),
    "codebook_attention": (
        _codebook_attention,
        lambda n: (torch.randn(n, 9, 8), torch.randn(12, 8), torch.randn(12, 8)),
    ),
    "self_attention": (_self_attention, lambda n: tuple(torch.randn(n, 9, 8) for _ in range(3))),
    "group_norm": (_group_norm, lambda n: (_pictures(n), torch.randn(8), torch.randn(8))),
}


def on_gpu(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    """A tensor without data that says it is on a GPU, for a torch without CUDA as well."""
    meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return FakeTensor(mode, meta, torch.device("cuda:0"))


every_op = pytest.mark.parametrize("name", list(OPS))


def call(name: str, tensors: tuple[Tensor, ...], backend: str) -> Tensor:
    return OPS[name][0](*tensors, backend)


@every_op
def test_auto_on_the_cpu_never_takes_a_gpu_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = OPS[name][1](2)
    expected = call(name, tensors, "reference")
    monkeypatch.setattr(_triton, "_reason", "taken by mistake")
    monkeypatch.setattr(_native, "_cuda_reason", "taken by mistake")
    torch.testing.assert_close(call(name, tensors, "auto"), expected, rtol=1e-4, atol=1e-5)


@every_op
def test_triton_refuses_cpu_tensors_outside_its_interpreter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "_INTERPRETED", False)
    monkeypatch.setattr(_triton, "_reason", None)
    with pytest.raises(BackendError, match="'triton' cannot run here: it takes tensors on a GPU, not on cpu"):
        call(name, OPS[name][1](2), "triton")


@every_op
def test_a_missing_triton_is_named_with_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "_reason", "triton is not installed: pip install 'cbtalk[gpu]'")
    with pytest.raises(BackendError, match=r"triton is not installed: pip install 'cbtalk\[gpu\]'"):
        call(name, OPS[name][1](2), "triton")


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


@every_op
def test_a_missing_cuda_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_cuda_reason", "libcbtalk_cuda.so is not beside the package")
    with pytest.raises(BackendError, match=r"'cuda' cannot run here: libcbtalk_cuda\.so is not beside the package"):
        call(name, OPS[name][1](2), "cuda")


@every_op
def test_cuda_refuses_cpu_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"backend 'cuda' cannot run here: ."):  # with whatever reason holds here
        call(name, OPS[name][1](2), "cuda")
    monkeypatch.setattr(_native, "_cuda_reason", None)
    with pytest.raises(BackendError, match="'cuda' cannot run here: it takes tensors on a GPU, not on cpu"):
        call(name, OPS[name][1](2), "cuda")


@every_op
def test_an_unknown_backend_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(BackendError, match=r"known: auto, .*triton"):
        call(name, OPS[name][1](2), "tensorrt")


@interpreted
@every_op
def test_float64_is_refused_by_name_and_served_by_auto(name: str) -> None:
    tensors = tuple(tensor.double() for tensor in OPS[name][1](2))
    with pytest.raises(BackendError, match=r"'triton' cannot run here: .*float32"):
        call(name, tensors, "triton")
    assert call(name, tensors, "auto").dtype == torch.float64


@interpreted
def test_a_layout_without_a_kernel_is_refused() -> None:
    x, weight, bias = OPS["group_norm"][1](2)
    with pytest.raises(BackendError, match="channels_last"):
        call("group_norm", (x.contiguous(), weight, bias), "triton")


@needs_triton
@every_op
def test_tensors_on_two_devices_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_cuda_reason", None)
    first, *others = OPS[name][1](2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors = (on_gpu(mode, first), *others)
        for backend in ("cuda", "triton"):
            monkeypatch.setattr(_triton, "_INTERPRETED", False)
            with pytest.raises(BackendError, match="not on cpu"):
                call(name, tensors, backend)


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=[needs_triton, needs_gpu])]
)
@every_op
def test_fake_tensors_take_the_triton_op(name: str, device: str) -> None:
    """The shapes, dtypes, layouts and devices that a compiler sees, without a kernel run."""
    tensors = tuple(tensor.to(device) for tensor in OPS[name][1](2))
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
        leaves = [tensor.requires_grad_() for tensor in OPS[name][1](batch)]
        ours, expected = compiled(*leaves), step(*leaves)
        torch.testing.assert_close(ours, expected)
        grad = torch.randn_like(expected)
        for mine, theirs in zip(
            torch.autograd.grad(ours, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
        ):
            torch.testing.assert_close(mine, theirs)
