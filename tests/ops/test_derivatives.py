"""Every op's derivatives as training code expects them, in each way that torch has to ask for them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vjp, vmap

from cbtalk import _native, ops
from cbtalk.ops.examples import EXAMPLES

pytestmark = pytest.mark.skipif(_native.why_not_cpp() is not None, reason=str(_native.why_not_cpp()))


class Example(NamedTuple):
    """An op as a function of its first tensors, and those tensors."""

    call: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]


# The convolution with all that is fused into it, and with few terms: their sums are compared in float32.
CALLS = {"conv3x3": partial(ops.conv3x3, leak=0.2, upsample=True)}
SIZES = {"conv3x3": {"channels": 4, "outputs": 3, "height": 5, "width": 6}}


def examples() -> dict[str, Example]:
    found = {}
    for one in EXAMPLES:
        inputs = one.inputs("cpu", **SIZES.get(one.name, one.small))
        # Copied, as torch.export takes no slices of one tensor for inputs that require gradients.
        found[one.name] = Example(CALLS.get(one.name, one.op), tuple(x.clone() for x in inputs))
    return found


every_op = pytest.mark.parametrize("name", list(examples()))
TWICE = ("nearest_code", "vector_quantize", "conv3x3")  # ops whose second derivatives are there, not refused


def penalty(example: Example, **backend: str) -> Callable[..., Tensor]:
    return lambda *tensors: example.call(*tensors, **backend).square().sum()


def gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*leaves), leaves)


def assert_all_close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@every_op
def test_torch_func_gives_the_gradients_of_autograd(name: str) -> None:
    example = examples()[name]
    function, places = penalty(example), tuple(range(len(example.inputs)))
    expected = gradients(function, example.inputs)
    assert_all_close(grad(function, argnums=places)(*example.inputs), expected)
    value, pull, *_ = vjp(function, *example.inputs)
    assert_all_close(pull(torch.ones_like(value)), expected)
    compiled = torch.compile(grad(function, argnums=places), backend="aot_eager", fullgraph=True)
    assert_all_close(compiled(*example.inputs), expected)


@every_op
def test_vmap_is_a_loop_over_samples(name: str) -> None:
    example = examples()[name]
    function, places = penalty(example), tuple(range(len(example.inputs)))
    samples = [tuple(x + 0.1 * i for x in example.inputs) for i in range(3)]
    stacked = tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
    assert_all_close(vmap(function)(*stacked), torch.stack([function(*sample) for sample in samples]))
    first, rest = stacked[0], example.inputs[1:]
    in_dims = (0, *(None for _ in rest))
    shared = [gradients(function, (x, *rest)) for x in first]
    per_sample = vmap(grad(function, argnums=places), in_dims)(first, *rest)
    assert_all_close(per_sample, tuple(torch.stack(parts) for parts in zip(*shared, strict=True)))
    summed = grad(lambda x: vmap(function, in_dims)(x, *rest).sum())(first)
    assert_all_close(summed, torch.stack([one[0] for one in shared]))


@every_op
def test_vmap_over_any_dimension_in_and_out(name: str) -> None:
    example = examples()[name]
    last = torch.stack([example.inputs[0] + 0.1 * i for i in range(3)], -1)
    mapped = vmap(example.call, (-1, *(None for _ in example.inputs[1:])), out_dims=-1)(last, *example.inputs[1:])
    assert_all_close(mapped, torch.stack([example.call(x, *example.inputs[1:]) for x in last.unbind(-1)], -1))


@every_op
@pytest.mark.parametrize("way", ["torch.func", "dual numbers"])
def test_forward_mode_is_right_or_refused(name: str, way: str) -> None:
    example = examples()[name]
    function, (first, *rest) = penalty(example), example.inputs
    tangent = torch.randn_like(first)
    expected = (gradients(function, example.inputs)[0] * tangent).sum()
    try:
        if way == "torch.func":
            actual = jvp(lambda x: function(x, *rest), (first,), (tangent,))[1]
        else:
            with forward_ad.dual_level():
                actual = forward_ad.unpack_dual(function(forward_ad.make_dual(first, tangent), *rest)).tangent
    except (NotImplementedError, RuntimeError) as refusal:
        assert "forward" in str(refusal)
        return
    # torch widens the tangent of a scalar that is multiplied by a Python number.
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3, check_dtype=False)


@every_op
@pytest.mark.parametrize("through", ["square", "sum", "penalty and value"])
def test_second_derivatives_are_right_or_refused(name: str, through: str) -> None:
    example = examples()[name]

    def second(inputs: tuple[Tensor, ...], backend: str) -> tuple[Tensor | None, ...]:
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = example.call(*leaves, backend=backend)
        value = out.square().sum() if through == "square" else out.sum()
        first = torch.autograd.grad(value, leaves, create_graph=True)
        loss = torch.stack([g.square().sum() for g in first]).sum()
        return torch.autograd.grad(loss + value if through == "penalty and value" else loss, leaves, allow_unused=True)

    if name not in TWICE:
        with pytest.raises(RuntimeError, match="no second derivative"):
            second(example.inputs, "auto" if name == "conv3x3" else "cpp")
        return
    expected = second(tuple(x.double() for x in example.inputs), "reference")
    for actual, exact in zip(second(example.inputs, "auto"), expected, strict=True):
        assert (actual is None) == (exact is None)
        if actual is not None and exact is not None:
            torch.testing.assert_close(actual.double(), exact, rtol=1e-4, atol=1e-4)


class Wrapped(torch.nn.Module):
    """An op whose first tensor passes through a parameter, and whose others are parameters."""

    def __init__(self, example: Example) -> None:
        super().__init__()
        self.call = example.call
        self.scale = torch.nn.Parameter(torch.tensor(1.1))
        self.others = torch.nn.ParameterList(example.inputs[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x * self.scale, *self.others)


@every_op
def test_an_exported_module_trains_as_in_eager(name: str) -> None:
    example = examples()[name]
    module = Wrapped(example)
    program = torch.export.export(module, (example.inputs[0],))
    for trained in (program.module(), torch.export.export(program.module(), (example.inputs[0],)).module()):
        module.zero_grad()
        module(example.inputs[0]).square().sum().backward()
        trained.zero_grad()
        trained(example.inputs[0]).square().sum().backward()
        theirs = {key: parameter.grad for key, parameter in trained.named_parameters()}
        for key, parameter in module.named_parameters():
            assert theirs[key] is not None, key
            assert_all_close(theirs[key], parameter.grad)


@every_op
def test_functional_call_differentiates_parameters(name: str) -> None:
    example = examples()[name]
    module = Wrapped(example)
    parameters = dict(module.named_parameters())
    module(example.inputs[0]).square().sum().backward()

    def loss(values: dict[str, Tensor]) -> Tensor:
        return functional_call(module, values, (example.inputs[0],)).square().sum()

    found = grad(loss)({key: value.detach() for key, value in parameters.items()})
    assert_all_close(found, {key: value.grad for key, value in parameters.items()})


@every_op
def test_meta_tensors_have_the_shapes_dtypes_and_gradients_of_real_ones(name: str) -> None:
    example = examples()[name]
    real = example.call(*example.inputs)
    leaves = [x.to("meta").requires_grad_() for x in example.inputs]
    meta = example.call(*leaves)
    assert (meta.shape, meta.dtype, meta.device.type) == (real.shape, real.dtype, "meta")
    for leaf, gradient in zip(leaves, torch.autograd.grad(meta.sum(), leaves), strict=True):
        assert (gradient.shape, gradient.dtype, gradient.device.type) == (leaf.shape, leaf.dtype, "meta")


@every_op
def test_a_distributed_tensor_is_refused_in_one_line(name: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        first, *others = examples()[name].inputs
        with pytest.raises(TypeError, match=r"^the ops of cbtalk take local tensors, not DTensors: .*to_local.*$"):
            examples()[name].call(distribute_tensor(first, mesh), *others)
    finally:
        torch.distributed.destroy_process_group()
