"""flow_warp as torch sees it: its registration, compilation, export and derivatives."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, vjp, vmap

from cbtalk import _triton
from cbtalk.ops import flow_warp
from tests.helpers.checks import with_gradients
from tests.helpers.cpp import needs_cpp
from tests.helpers.tiers import slow
from tests.ops.test_flow_warp import is_dense, layouts, make_inputs
from tests.ops.test_flow_warp_padding import paddings

TWINS = ["flow_warp", "flow_warp_triton"]


def make_leaves(inputs: list[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.detach().requires_grad_() for x in inputs]


@needs_cpp
@layouts
@pytest.mark.parametrize("name", [TWINS[0], *slow(*TWINS[1:])])
def test_opcheck(name: str, layout: str) -> None:
    if name.endswith("triton") and _triton._reason is not None:
        pytest.skip(_triton._reason)
    forward = getattr(torch.ops.cbtalk, name)
    backward = getattr(torch.ops.cbtalk, name.replace("warp", "warp_backward"))
    feature, flow, occlusion = make_inputs((1, 2, 5), (4, 5), (3, 4), (2, 3), layout)
    for one, map_, padding in ((feature, occlusion, 1), (feature[:, 1:, 2:], None, 2)):
        torch.library.opcheck(forward, (*make_leaves([one, flow, map_]), 4, 5, True, padding))
        out = forward(one, flow, map_, 4, 5, True, padding)
        needed = (True, True, map_ is not None)
        torch.library.opcheck(backward, (out, one, flow, map_, True, padding, *needed, False))


@needs_cpp
@layouts
def test_opcheck_of_bfloat16(layout: str) -> None:
    feature, flow, occlusion = make_inputs((2, 2, 5), (6, 7), (3, 4), (2, 3), layout)
    leaves = make_leaves([feature.bfloat16(), flow, occlusion])
    torch.library.opcheck(torch.ops.cbtalk.flow_warp, (*leaves, 8, 9, True, 0))


@needs_cpp
@layouts
def test_compiles_whole_forward_and_backward_at_any_size(layout: str) -> None:
    torch._dynamo.reset()

    def step(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
        H, W = feature.shape[2:]
        return flow_warp(flow_warp(feature, flow), flow, occlusion, size=(2 * H, W + 1)).sin()

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for B, H in ((2, 8), (3, 11)):
        feature, flows, occlusion = make_inputs((B, 1, 4), (H, 7), (5, 6), (4, 3), layout)
        inputs = [feature, flows[:, 0], occlusion]
        for one, other in zip(with_gradients(compiled, inputs), with_gradients(step, inputs), strict=True):
            torch.testing.assert_close(one, other)


@needs_cpp
@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    torch._dynamo.reset()
    inputs = make_inputs((2, 3, 4), (8, 7), (5, 6), (4, 3), "channels_last")
    compiled = torch.compile(lambda *x: flow_warp(*x) * 2, fullgraph=True)
    for one, other in zip(
        with_gradients(compiled, inputs), with_gradients(lambda *x: flow_warp(*x) * 2, inputs), strict=True
    ):
        torch.testing.assert_close(one, other)


@needs_cpp
def test_exports_as_one_node_with_any_batch() -> None:
    class Warp(torch.nn.Module):
        def forward(self, feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
            return flow_warp(feature, flow, occlusion)

    feature, flows, occlusion = make_inputs((2, 1, 4), (8, 7), (5, 6), (4, 3))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(Warp(), (feature, flows[:, 0], occlusion), dynamic_shapes=(batch, batch, batch))
    assert [str(node.target) for node in program.graph.nodes].count("cbtalk.flow_warp.default") == 1
    feature, flows, occlusion = make_inputs((5, 1, 4), (8, 7), (5, 6), (4, 3))
    torch.testing.assert_close(
        program.module()(feature, flows[:, 0], occlusion), flow_warp(feature, flows[:, 0], occlusion)
    )


def loss(padding: str, backend: str = "auto") -> Callable[..., Tensor]:
    return lambda *x: flow_warp(*x, size=(7, 8), padding=padding, backend=backend).square().sum()


def make_samples(*batch: int) -> tuple[Tensor, ...]:
    """Feature, flow and occlusion, each with the dimensions `batch` in front."""
    return tuple(torch.rand(*batch, *shape) * 2.6 - 1.3 for shape in ((2, 4, 6, 5), (2, 2, 3, 4, 2), (2, 1, 3, 3)))


@needs_cpp
@paddings
def test_torch_func_gives_what_the_reference_gives(padding: str) -> None:
    inputs, places = make_samples(), (0, 1, 2)
    expected = grad(loss(padding, backend="reference"), argnums=places)(*inputs)
    torch.testing.assert_close(grad(loss(padding), argnums=places)(*inputs), expected, rtol=1e-4, atol=1e-4)
    value, pull, *_ = vjp(loss(padding), *inputs)
    torch.testing.assert_close(pull(torch.ones_like(value)), expected, rtol=1e-4, atol=1e-4)
    stacked = make_samples(3)
    per_sample = vmap(grad(loss(padding), argnums=places))(*stacked)
    for i in range(3):
        alone = grad(loss(padding, backend="reference"), argnums=places)(*(x[i] for x in stacked))
        torch.testing.assert_close(tuple(x[i] for x in per_sample), alone, rtol=1e-4, atol=1e-4)


@layouts
def test_the_reference_under_vmap_is_a_loop_over_samples(layout: str) -> None:
    samples = [make_inputs((2, 1, 4), (6, 5), (4, 4), (3, 3), layout) for _ in range(3)]
    memory_order = (0, 2, 3, 1) if layout == "channels_last" else (0, 1, 2, 3)
    back = (0, 1, 4, 2, 3) if layout == "channels_last" else (0, 1, 2, 3, 4)
    # Stacked in the order of the memory: torch.stack would make the samples contiguous.
    features = torch.stack([feature.permute(memory_order) for feature, *_ in samples]).permute(back)
    maps = [torch.stack(parts) for parts in zip(*(rest for _, *rest in samples), strict=True)]
    mapped = vmap(partial(flow_warp, backend="reference"))(features, *maps)
    alone = [flow_warp(*sample, backend="reference") for sample in samples]
    assert is_dense(features[0], layout) and is_dense(mapped[0].flatten(0, 1), layout)
    torch.testing.assert_close(mapped, torch.stack(alone))


@needs_cpp
@paddings
@pytest.mark.parametrize("through", ["sum", "square"])
def test_a_second_derivative_is_refused(padding: str, through: str) -> None:
    leaves = [x.requires_grad_() for x in make_samples()]
    out = flow_warp(*leaves, padding=padding, backend="cpp")
    first = torch.autograd.grad(out.sum() if through == "sum" else out.square().sum(), leaves, create_graph=True)
    for gradient in first:
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(gradient.square().sum(), leaves, allow_unused=True, retain_graph=True)


@needs_cpp
@paddings
def test_an_exported_module_trains_as_in_eager(padding: str) -> None:
    class Warp(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            _, flow, occlusion = make_samples()
            self.flow, self.occlusion = torch.nn.Parameter(flow), torch.nn.Parameter(occlusion)

        def forward(self, feature: Tensor) -> Tensor:
            return flow_warp(feature, self.flow, self.occlusion, padding=padding)

    module, feature = Warp(), make_samples()[0]
    exported = torch.export.export(module, (feature,)).module()
    gradients = []
    for one in (module, exported):
        leaf = feature.clone().requires_grad_()
        parameters = dict(one.named_parameters())
        wanted = [leaf, parameters["flow"], parameters["occlusion"]]
        gradients.append(torch.autograd.grad(one(leaf).square().sum(), wanted))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


@needs_cpp
@layouts
@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_tensors_without_data_have_shapes_dtypes_and_layouts(layout: str, kind: str) -> None:
    inputs = make_inputs((2, 2, 5), (6, 7), (3, 4), (2, 3), layout)
    inputs[0] = inputs[0].bfloat16()

    def results(inputs: list[Tensor]) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = flow_warp(*leaves, size=(8, 9), padding="border")
        return [out, *torch.autograd.grad(out.sum(), leaves)]

    real = results(inputs)
    if kind == "meta":
        found = results([x.to("meta") for x in inputs])
    else:
        with FakeTensorMode() as mode:
            found = results([mode.from_tensor(x) for x in inputs])
    for one, other in zip(found, real, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert is_dense(real[0], layout) and found[0].stride() == real[0].stride()
