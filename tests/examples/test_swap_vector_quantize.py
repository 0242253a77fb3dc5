"""vector-quantize-pytorch gives the same with its quantising step served by cbtalk."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

package = pytest.importorskip("vector_quantize_pytorch", reason="vector-quantize-pytorch is not installed")
from examples import swap_vector_quantize as example  # noqa: E402

ROOT = Path(__file__).parents[2]
THEIR_TESTS = os.environ.get("CBTALK_VQ_TESTS")


@pytest.fixture(autouse=True)
def _swap_back() -> Iterator[None]:
    example.CALLS.clear()
    yield
    example.swap_back()


def quantizer(options: dict[str, Any], dim: int = 12, codes: int = 20) -> Any:
    """A quantiser, most of them with clusters to find."""
    return package.VectorQuantize(dim=dim, codebook_size=codes, **options)


def batches(shape: tuple[int, ...], calls: int) -> list[Tensor]:
    centres = torch.randn(12, shape[-1])
    return [(centres[torch.randint(12, shape[:-1])] + 0.3 * torch.randn(shape)).requires_grad_() for _ in range(calls)]


def run(module: nn.Module, inputs: list[Tensor], **options: Any) -> list[Tensor]:
    """Results, gradients and buffers of a few calls, one seed each."""
    found: list[Tensor] = []
    for seed, x in enumerate(inputs):
        torch.manual_seed(seed)
        module.zero_grad()
        leaf = x.detach().clone().requires_grad_()
        quantized, indices, loss = module(leaf, **options)
        found += [quantized, indices, loss]
        objective = quantized.square().mean() + loss.sum()
        if objective.requires_grad:
            objective.backward()
        found += [p.grad.clone() for p in [leaf, *module.parameters()] if p.grad is not None]
        found += [buffer.clone() for buffer in module.state_dict().values()]
    return found


def assert_same(make: Callable[[], nn.Module], inputs: list[Tensor], **options: Any) -> None:
    original, swapped = make(), make()
    swapped.load_state_dict(original.state_dict())
    example.swap_back()
    expected = run(original, inputs, **options)
    example.swap()
    found = run(swapped, inputs, **options)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def random_options(draw: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"decay": draw.choice([0.8, 0.99])}
    kind = draw.choice(["ema", "cosine", "learned", "orthogonal", "affine"])
    if kind == "cosine":
        options["use_cosine_sim"] = True
    if kind == "learned":
        options |= {"learnable_codebook": True, "ema_update": False}
    if kind == "orthogonal":
        options["orthogonal_reg_weight"] = 0.1
    if kind == "affine":
        options["affine_param"] = True
    if draw.random() < 0.5:
        options |= {"heads": 3, "separate_codebook_per_head": draw.random() < 0.5, "codebook_dim": draw.choice([4, 5])}
    options["kmeans_init"] = draw.random() < 0.5
    options["threshold_ema_dead_code"] = draw.choice([0, 2])
    options["rotation_trick"] = draw.random() < 0.5
    if draw.random() < 0.25:
        options["commitment_use_cross_entropy_loss"] = True
    if draw.random() < 0.25:
        # Of temperature 100, as it is by default, the loss enlarges rounding errors a hundredfold.
        options |= {"codebook_diversity_loss_weight": 0.1, "codebook_diversity_temperature": 1.0}
    return options


@pytest.mark.parametrize("seed", range(60))
def test_results_losses_gradients_and_buffers_are_those_of_the_package(seed: int) -> None:
    draw = random.Random(seed)
    options = random_options(draw)
    mask = torch.rand(3, 40) < 0.7 if draw.random() < 0.4 else None
    if mask is not None and "heads" in options and "commitment_use_cross_entropy_loss" not in options:
        options["commitment_weight"] = 0.0  # the package's commitment takes no mask of several heads
    training = "affine_param" in options or draw.random() < 0.7  # what is affine has nothing to evaluate with yet
    assert_same(lambda: quantizer(options).train(training), batches((3, 40, 12), calls=3), mask=mask)
    assert set(example.CALLS) == {"cbtalk"}, example.CALLS


@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_after_the_update_are_those_of_the_codes_before_it(in_place: bool) -> None:
    options: dict[str, Any] = {"decay": 0.1}
    if in_place:
        options |= {
            "learnable_codebook": True,
            "ema_update": False,
            "in_place_codebook_optimizer": lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        }
    assert_same(lambda: quantizer({**options, "rotation_trick": False}), batches((2, 50, 12), calls=2))


@pytest.mark.parametrize("shape", [(30, 12), (2, 5, 12), (2, 12, 3, 4), (2, 12, 2, 3, 4)], ids=str)
def test_every_shape(shape: tuple[int, ...]) -> None:
    options = {4: {"accept_image_fmap": True}, 5: {"accept_3d_fmap": True}}.get(len(shape), {})
    assert_same(lambda: quantizer(options), [torch.randn(shape) for _ in range(2)])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: quantizer({"stochastic_sample_codes": True}), "sampling"),
        (lambda: quantizer({"straight_through": True, "rotation_trick": False}), "sampling"),
        (lambda: package.ResidualVQ(dim=12, codebook_size=20, num_quantizers=2, beam_size=2), "top-k"),
    ],
)
def test_what_cbtalk_has_not_is_left_to_the_package(make: Callable[[], nn.Module], reason: str) -> None:
    assert_same(make, [torch.randn(2, 7, 12) for _ in range(2)])
    assert set(example.CALLS) <= {reason, "cbtalk"} and example.CALLS[reason] > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_codebooks_that_a_network_makes_for_each_row(training: bool, masked: bool) -> None:
    options = {"implicit_neural_codebook": True, "mlp_kwargs": {"depth": 1}}
    mask = torch.rand(2, 9) < 0.7 if masked else None

    def make() -> nn.Module:
        return package.ResidualVQ(dim=12, codebook_size=20, num_quantizers=3, **options).train(training)

    assert_same(make, batches((2, 9, 12), calls=3), mask=mask)
    assert set(example.CALLS) == {"cbtalk"}, example.CALLS


@pytest.mark.parametrize("cosine", [False, True])
def test_codebooks_transformed_for_each_row(cosine: bool) -> None:
    shifts = torch.randn(1, 2, 9, 1, 12)
    inputs = batches((2, 9, 12), calls=2)
    options = {"use_cosine_sim": cosine, "commitment_use_cross_entropy_loss": True}
    transform = {"codebook_transform_fn": lambda codes: codes[:, None, None] + shifts}
    assert_same(lambda: quantizer(options), inputs, **transform)
    assert set(example.CALLS) == {"cbtalk"}, example.CALLS


def test_indices_that_are_given_get_their_cross_entropy() -> None:
    module = quantizer({})
    x, indices = torch.randn(2, 7, 12), torch.randint(20, (2, 7))
    example.swap_back()
    expected = deepcopy(module)(x, indices=indices)
    example.swap()
    torch.testing.assert_close(module(x, indices=indices), expected)


def failures_of_their_tests(folder: Path, report: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "tests.examples.swapping"]
    command.append(str(THEIR_TESTS))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CBTALK_VQ_CALLS": report}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert " passed" in result.stdout, result.stdout + result.stderr
    print(result.stdout[result.stdout.index("= short test summary") :] if result.returncode else result.stdout[-200:])
    lines = result.stdout.splitlines()
    return {line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))}


@pytest.mark.parametrize("options", [{}, {"use_cosine_sim": True}, {"heads": 3, "separate_codebook_per_head": True}])
def test_an_update_with_codes_that_were_chosen_before(options: dict[str, Any]) -> None:
    x, mask = torch.randn(2, 50, 12), torch.rand(2, 50) < 0.7
    original, swapped, at_once = (quantizer({**options, "codebook_dim": 12 // options.get("heads", 1)}) for _ in "123")
    for other in (swapped, at_once):
        other.load_state_dict(original.state_dict())
    example.swap_back()
    _, indices, _ = deepcopy(original).eval()(x)
    original.update_indices(x, indices, mask=mask)
    example.swap()
    swapped.update_indices(x, indices, mask=mask)
    torch.testing.assert_close(swapped.state_dict(), original.state_dict(), rtol=1e-5, atol=1e-6)
    at_once._codebook(at_once._codebook.transform_input(at_once.maybe_split_heads_from_input(x)), mask=mask)
    torch.testing.assert_close(swapped.state_dict(), at_once.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(THEIR_TESTS is None, reason="CBTALK_VQ_TESTS names no folder with the package's own tests")
def test_the_packages_own_tests_that_pass_still_do(tmp_path: Path) -> None:
    report = tmp_path / "calls.json"
    assert failures_of_their_tests(tmp_path, str(report)) <= failures_of_their_tests(tmp_path, "")
    calls = json.loads(report.read_text())
    print(calls)
    assert calls["cbtalk"] > 0 and set(calls) <= {"cbtalk", "sampling", "top-k"}
