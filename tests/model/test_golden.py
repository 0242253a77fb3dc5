"""The published model's own numbers, stage by stage."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cbtalk.model.config import PRESETS
from cbtalk.model.dense_motion import DenseMotion
from cbtalk.model.discriminator import PatchDiscriminator
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.relative_motion import relative_keypoints
from cbtalk.model.talker import Talker
from tests.golden import weights

GOLDEN = Path(weights.__file__).parent
FLOAT32_BUDGET = 5e-5  # the published code's own float32 error is 1e-5
FLOAT64_BUDGET = 1e-6  # the figures are stored as float32


def relative_error(actual: Tensor, expected: np.ndarray) -> float:
    difference = actual.detach().double().numpy() - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


def sliced(tensor: Tensor, name: str) -> Tensor:
    """`tensor` cut as the brackets at the end of an array's name say, e.g. `[:,::8,::4]`."""
    _, bracket, steps = name.rstrip("]").partition("[")
    for dim, step in enumerate(steps.split(",") if bracket else []):
        stride = int(step[2:] or 1) if step.startswith("::") else 1
        tensor = tensor[(slice(None),) * dim + (slice(None, None, stride),)]
    return tensor


def record(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Everything that passes between the stages of the talker from now on, under the golden names."""
    seen: dict[str, Tensor] = {}
    scales, net = talker.config.scales, talker.net_g
    dense_motion = talker.motion_estimator.dense_motion_network.forward
    compensate_motion, compensate_appearance = net.compensate_motion, net.compensate_appearance

    def dense(*arguments: Any) -> DenseMotion:
        motion = dense_motion(*arguments)
        names = ("dense_motion.mask", "dense_motion.sparse_deformed", "dense_motion.driving_kp_heatmap")
        seen.update(zip(names, (motion.mask, motion.deformed, motion.heatmaps), strict=True))
        seen["dense_motion.occlusion_map"], seen["deformation.0"] = motion.occlusion, motion.deformation
        return motion

    def motion(index: int, *arguments: Any) -> object:
        step = compensate_motion(index, *arguments)
        seen[f"deformation.{index + 1}"], seen[f"occlusion.{index}"] = step.deformation, step.occlusion
        return step

    def appearance(index: int, feature: Tensor, *arguments: Any) -> Tensor:
        compensated = compensate_appearance(index, feature, *arguments)
        seen[f"appearance.before.{scales[index]}"] = feature
        seen[f"appearance.after.{scales[index]}"] = compensated
        return compensated

    monkeypatch.setattr(talker.motion_estimator.dense_motion_network, "forward", dense)
    monkeypatch.setattr(net, "compensate_motion", motion)
    monkeypatch.setattr(net, "compensate_appearance", appearance)
    return seen


def batch(name: str, count: int, dtype: torch.dtype) -> Tensor:
    return torch.stack([weights.image(f"{name}.{i}") for i in range(count)]).to(dtype)


def check_inference(talker: Talker, dtype: torch.dtype, budget: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = record(talker, monkeypatch)
    with torch.no_grad():
        state = talker.encode_source(batch("a.source", 2, dtype))
        driving = talker.keypoints(batch("a.driving", 2, dtype))
        seen["image"] = talker.animate_keypoints(state, driving)
    for which, keypoints in (("source", state.keypoints), ("driving", driving)):
        seen[f"keypoints.{which}.value"], seen[f"keypoints.{which}.jacobian"] = keypoints
    with np.load(GOLDEN / "inference_a.npz") as golden:
        errors = {name: relative_error(sliced(seen[name.partition("[")[0]], name), golden[name]) for name in golden}
    assert not {name: error for name, error in errors.items() if not error <= budget}


def test_inference(paper: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    check_inference(paper, torch.float32, FLOAT32_BUDGET, monkeypatch)


@pytest.mark.slow
def test_inference_in_float64(paper: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    check_inference(copy.deepcopy(paper).double(), torch.float64, FLOAT64_BUDGET, monkeypatch)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("disjoint", {"code_allocation": "disjoint"}),
        ("unsplit", {"code_allocation": "unsplit"}),
        ("appearance_32_64", {"appearance_scales": 2}),
    ],
)
def test_variants(variant: str, changes: dict[str, Any], paper: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        talker = Talker(dataclasses.replace(PRESETS["paper"], **changes)).eval()
    state_dict = paper.state_dict()
    talker.load_state_dict({name: state_dict[name] for name in talker.state_dict()}, assign=True)
    seen = record(talker, monkeypatch)
    with torch.no_grad():
        state = talker.encode_source(batch(f"{variant}.source", 1, torch.float32))
        seen["image"] = talker.animate(state, batch(f"{variant}.driving", 1, torch.float32))
    with np.load(GOLDEN / "variants.npz") as golden:
        for name in (f"{variant}.image[:,:,::2,::2]", f"{variant}.deformation.4"):
            key = name.removeprefix(f"{variant}.").partition("[")[0]
            assert relative_error(sliced(seen[key], name), golden[name]) <= FLOAT32_BUDGET, name


@pytest.mark.parametrize(("scale", "adapt_scale"), [("plain", False), ("adapted", True)])
def test_relative_motion(scale: str, adapt_scale: bool) -> None:
    keypoints = {}
    for which, spread in (("source", 0.3), ("driving", 0.25), ("initial", 0.25)):
        value = spread * weights.normals(f"relative.{which}.value", (1, 15, 2))
        jacobian = np.eye(2) + 0.1 * weights.normals(f"relative.{which}.jacobian", (1, 15, 2, 2))
        keypoints[which] = Keypoints(torch.from_numpy(value), torch.from_numpy(jacobian))
    moved = relative_keypoints(keypoints["source"], keypoints["driving"], keypoints["initial"], adapt_scale=adapt_scale)
    with np.load(GOLDEN / "variants.npz") as golden:
        assert relative_error(moved.value, golden[f"relative.{scale}.value"]) < 1e-12
        assert relative_error(moved.jacobian, golden[f"relative.{scale}.jacobian"]) < 1e-12


def test_parameter_names_and_shapes_are_the_published_ones() -> None:
    published = json.loads((GOLDEN / "state_dict_shapes.json").read_text())
    with torch.device("meta"):
        talker, discriminator = Talker(PRESETS["paper"]), PatchDiscriminator(PRESETS["paper"])
    modules = {"net_g": talker.net_g, "motion_estimator": talker.motion_estimator, "net_d": discriminator}
    for name, module in modules.items():
        assert {key: list(value.shape) for key, value in module.state_dict().items()} == published[name]
