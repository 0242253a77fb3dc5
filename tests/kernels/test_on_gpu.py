"""Tests that need a GPU: streams, graphs, sizes beyond 32 bits, determinism, memory, torch.compile."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from bench.peak import peak_bytes
from cbtalk.doctor import GPU_BACKENDS
from cbtalk.errors import BackendError
from cbtalk.ops import codebook_attention, flow_warp, group_norm, nearest_code
from cbtalk.ops.examples import ON_GPU, Example, Inputs, named
from tests.kernels.where import needs_gpu

pytestmark = needs_gpu

each_op = pytest.mark.parametrize("name", [example.name for example in ON_GPU])
each_backend = pytest.mark.parametrize("backend", GPU_BACKENDS)


def on_gpu(name: str, backend: str, device: str = "cuda") -> tuple[Example, Inputs]:
    """The op and inputs on the GPU; skips where the backend is off."""
    example = named(name)
    inputs = example.inputs(device)
    try:
        example.op(*inputs, backend=backend)
    except BackendError as reason:
        pytest.skip(str(reason))
    return example, inputs


def close(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, rtol=1e-4, atol=1e-4)


@each_op
@each_backend
def test_a_captured_graph_follows_its_inputs(name: str, backend: str) -> None:
    example, inputs = on_gpu(name, backend)
    static = [x.clone() for x in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = example.op(*static, backend=backend)
    for seed in (1, 2):
        torch.manual_seed(seed)
        for x in static:
            x.copy_(torch.rand_like(x))
        graph.replay()
        torch.cuda.synchronize()
        assert close(out, example.op(*static, backend="reference"))


@each_op
@each_backend
def test_gradients_can_be_captured(name: str, backend: str) -> None:
    example, inputs = on_gpu(name, backend)
    leaves = [x.clone().requires_grad_() for x in inputs]

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(example.op(*leaves, backend=backend).square().sum(), leaves)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        eager = step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    assert all(close(mine, other) for mine, other in zip(captured, eager, strict=True))


@each_op
@each_backend
def test_the_current_stream_is_used(name: str, backend: str) -> None:
    """The inputs are written late on a side stream; a kernel on another stream would read the old ones."""
    example, inputs = on_gpu(name, backend)
    expected = example.op(*inputs, backend="reference")
    late = [torch.zeros_like(x) for x in inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for target, source in zip(late, inputs, strict=True):
            target.copy_(source)
        out = example.op(*late, backend=backend)
    stream.synchronize()
    assert close(out, expected)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@each_op
@each_backend
def test_gradients_are_the_same_bits_where_torch_asks_for_it(name: str, backend: str, deterministic: None) -> None:
    example, inputs = on_gpu(name, backend)
    leaves = [x.clone().requires_grad_() for x in inputs]
    runs = [torch.autograd.grad(example.op(*leaves, backend=backend).square().sum(), leaves) for _ in range(3)]
    for other in runs[1:]:
        assert all(torch.equal(first, second) for first, second in zip(runs[0], other, strict=True))


@each_op
@each_backend
def test_torch_compile_keeps_one_graph(name: str, backend: str) -> None:
    example, inputs = on_gpu(name, backend)
    compiled = torch.compile(lambda *inputs: example.op(*inputs, backend=backend), fullgraph=True)
    assert close(compiled(*inputs), example.op(*inputs, backend="reference"))


@each_op
@each_backend
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_device_of_the_tensors_is_used(name: str, backend: str) -> None:
    example, inputs = on_gpu(name, backend, "cuda:1")
    assert torch.cuda.current_device() == 0
    assert close(example.op(*inputs, backend=backend), example.op(*inputs, backend="reference"))


def _large_warp(backend: str) -> tuple[Tensor, Tensor]:
    feature = torch.empty(33, 64, 1024, 1024, dtype=torch.bfloat16, device="cuda", memory_format=torch.channels_last)
    feature.normal_()
    flow = torch.rand(33, 8, 8, 2, device="cuda") * 2 - 1
    return flow_warp(feature, flow, backend=backend)[-1:], flow_warp(feature[-1:], flow[-1:], backend="reference")


def _large_norm(backend: str) -> tuple[Tensor, Tensor]:
    x = torch.empty(33, 64, 1024, 1024, dtype=torch.bfloat16, device="cuda", memory_format=torch.channels_last)
    weight, bias = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
    x.normal_()

    def op(x: Tensor, backend: str) -> Tensor:
        return group_norm(x, weight, bias, groups=32, eps=1e-6, silu=True, backend=backend)

    return op(x, backend)[-1:], op(x[-1:], "reference")


def _large_codes(backend: str) -> tuple[Tensor, Tensor]:
    z, codebook = torch.randn((1 << 26) + 100, 32, device="cuda"), torch.randn(16, 32, device="cuda")
    found, expected = nearest_code(z, codebook, backend=backend), nearest_code(z[-100:], codebook, backend="reference")
    return found.distances[-100:], expected.distances


def _large_attention(backend: str) -> tuple[Tensor, Tensor]:
    query = torch.randn((1 << 16) + 1, 1024, 32, device="cuda")
    key, value = torch.randn(2, 16, 32, device="cuda")
    found = codebook_attention(query, key, value, heads=8, backend=backend)[-1:]
    return found, codebook_attention(query[-1:], key, value, heads=8, backend="reference")


# By the base name of the kernels' files.
LARGE: dict[str, Callable[[str], tuple[Tensor, Tensor]]] = {
    "flow_warp": _large_warp,
    "group_norm": _large_norm,
    "nearest_code": _large_codes,
    "codebook_attention": _large_attention,
}


@each_backend
@pytest.mark.parametrize("base", LARGE)
def test_more_than_two_to_the_31_elements(base: str, backend: str) -> None:
    if torch.cuda.get_device_properties(0).total_memory < 40 << 30:
        pytest.skip("needs 40 GB of GPU memory")
    try:
        actual, expected = LARGE[base](backend)
    except BackendError as reason:
        pytest.skip(str(reason))
    assert torch.allclose(actual.float(), expected.float(), rtol=2e-2, atol=2e-2)


@each_op
@each_backend
def test_a_call_needs_little_more_than_its_results(name: str, backend: str) -> None:
    """Inputs are there before the call; beyond the outputs at most a tenth of inputs and outputs together."""
    example, _ = on_gpu(name, backend)
    larger = example.inputs("cuda", batch=128)
    results = example.op(*larger, backend=backend)
    size = results.numel() * results.element_size()
    if name in ("nearest_code", "vector_quantize"):  # the indices, and the codes beside the loss
        size += 8 * larger[0].shape[0] + (4 * larger[0].numel() if name == "vector_quantize" else 0)
    given = sum(x.numel() * x.element_size() for x in larger)
    assert peak_bytes(lambda: example.op(*larger, backend=backend), "cuda") <= size + 0.1 * (size + given) + 4096


@each_op
@each_backend
def test_gradients_need_little_more_than_themselves(name: str, backend: str) -> None:
    """Inputs, output and its gradient are there before; beyond the gradients at most a tenth of all together."""
    example, _ = on_gpu(name, backend)
    leaves = [x.clone().requires_grad_() for x in example.inputs("cuda", batch=128)]
    out = example.op(*leaves, backend=backend)
    grad_out = torch.randn_like(out)
    gradients = sum(leaf.nbytes for leaf in leaves)
    peak = peak_bytes(lambda: torch.autograd.grad(out, leaves, grad_out, retain_graph=True), "cuda")
    assert peak <= gradients + 0.1 * (2 * gradients + 2 * out.nbytes) + 4096
