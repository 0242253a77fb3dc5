"""Talkers in half precision: what is cast, what stays in float32, and how often features change their dtype."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import cbtalk
from cbtalk.model.blocks import GroupNorm
from cbtalk.model.half import cast
from cbtalk.model.talker import Talker
from cbtalk.model.transformer import CrossAttention, SelfAttention
from tests.helpers.talkers import MakeTalker
from tests.model.test_talker import images

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"residual_blocks": 2},
        {"opening_maps": True, "keypoints": 16, "appearance_scales": 1},
        {"source_pixels": True},
        {"motion_compensation": False, "appearance_scales": 0},
        {"ch_mult": (2,), "motion_downsampling": 1, "image_size": 32},
    ],
    ids=str,
)
def test_coordinates_and_images_are_float32(tiny: MakeTalker, changes: dict[str, Any], dtype: torch.dtype) -> None:
    exact, talker = tiny(**changes), cast(tiny(**changes), dtype)
    source, driving = images(1, talker.image_size), images(2, talker.image_size)
    with torch.no_grad():
        state, keypoints = talker.encode_source(source), talker.keypoints(driving)
        motion = talker.motion_estimator.dense_motion_network(state.small, state.keypoints, keypoints)
        found = talker.net_g(state.features, motion)
        same, expected = exact.keypoints(driving), exact.animate(exact.encode_source(source), driving)
    assert {feature.dtype for feature in state.features[: len(talker.config.scales)]} == {dtype}
    float32 = [*keypoints, *motion, found.image]
    float32 += [tensor for step in found.motion for tensor in (step.deformation, step.occlusion, step.pixel_flow)]
    assert {tensor.dtype for tensor in float32} == {torch.float32}
    assert all(map(torch.equal, keypoints, same))
    # Random weights amplify what is rounded: here it must only be the same image. Trained ones have bounds below.
    assert (found.image - expected).norm() < 0.2 * (expected - expected.mean()).norm()


COORDINATES = (
    "motion_estimator.kp_detector",
    "motion_estimator.dense_motion_network.mask",
    "motion_estimator.dense_motion_network.occlusion",
    "net_g.refine.conv2",
    "net_g.refine.convo2",
    "net_g.to_motion.2",  # the flow that a code stands for, in training
)


def test_only_coordinates_norms_and_the_image_keep_their_weights(tiny: MakeTalker) -> None:
    talker = cast(tiny(), torch.bfloat16)
    last = f"net_g.generator.blocks.{len(talker.net_g.generator.blocks) - 1}"
    norms = {name for name, module in talker.named_modules() if isinstance(module, GroupNorm | nn.BatchNorm2d)}
    for name, parameter in talker.named_parameters():
        kept = name.startswith((*COORDINATES, f"{last}.")) or name.rpartition(".")[0] in norms
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name


def test_a_talker_is_loaded_in_half_precision() -> None:
    talker = cbtalk.load("mini", pretrained=False, dtype=torch.bfloat16)
    assert talker.net_g.encoder.blocks[0].get_parameter("weight").dtype == torch.bfloat16
    assert talker.net_g.encoder.blocks[0].get_parameter("weight").is_contiguous(memory_format=torch.channels_last)
    for dtype in (torch.float64, torch.int8):
        with pytest.raises(ValueError, match="float32, bfloat16 or float16"):
            cbtalk.load("mini", pretrained=False, dtype=dtype)


def test_motion_files_fit_every_precision(tiny: MakeTalker) -> None:
    assert cast(tiny(), torch.float16).motion_fingerprint() == tiny().motion_fingerprint()


class Conversions(TorchDispatchMode):
    """Counts the tensors that change their dtype, and keeps what they were stored in."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[torch.dtype, torch.dtype]] = Counter()
        self.converted: set[int] = set()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        if op is torch.ops.aten._to_copy.default and args[0].dtype != result.dtype:
            self.counts[args[0].dtype, result.dtype] += 1
            self.converted.add(args[0].untyped_storage().data_ptr())
        return result


def test_features_are_not_cast_back_and_forth(tiny: MakeTalker) -> None:
    talker = cast(tiny(), torch.bfloat16)
    with torch.no_grad():
        state = talker.encode_source(images(1))
        talker.animate_keypoints(state, state.keypoints)
        with Conversions() as seen:
            talker.animate_keypoints(state, state.keypoints)
    scales, attentions = len(talker.config.scales), 0
    for module in talker.modules():
        attentions += scales * isinstance(module, SelfAttention | CrossAttention)
    # The attention on a CPU computes in float32: query, key and value of each call, and back again. Of a scale: the
    # flow and the position between two rows on their way in, the last layers of flow and occlusion on their way out.
    # Once: the input of dense motion, heat maps, mask and occlusion of dense motion, the sums of the finest scale.
    assert seen.counts[torch.bfloat16, torch.float32] <= 3 * attentions + 2 * scales + 3
    assert seen.counts[torch.float32, torch.bfloat16] <= attentions + 2 * scales + 2
    weights = {parameter.untyped_storage().data_ptr() for parameter in talker.parameters()}
    assert not seen.converted & weights


@pytest.mark.parametrize(
    "change", [lambda t: t.to(torch.bfloat16), lambda t: t.half(), lambda t: t.to("cpu", torch.float16)]
)
def test_all_in_half_precision_is_refused(tiny: MakeTalker, change: Callable[[Talker], Talker]) -> None:
    talker = tiny()
    with pytest.raises(TypeError, match=r"cbtalk\.load\(name, dtype="):
        change(talker)
    assert {parameter.dtype for parameter in talker.parameters()} == {torch.float32}
    assert talker.double() is talker
