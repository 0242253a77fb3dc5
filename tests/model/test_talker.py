import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from cbtalk.errors import InputError
from cbtalk.model.config import PRESETS, TalkerConfig
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker, TalkerOutput
from tests.helpers.talkers import TINY, MakeTalker


def images(count: int, size: int = TINY.image_size, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count), dtype=dtype) * 2 - 1


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal but for the order of sums, which random weights amplify."""
    budget = 1e-3 if actual.dtype == torch.float32 else 1e-9
    assert (actual - expected).norm() <= budget * expected.norm()


ODD_SIZES: list[dict[str, Any]] = [
    {},
    {"ch_mult": (1, 2), "motion_downsampling": 2},
    {"ch_mult": (2, 1, 1, 3), "residual_blocks": 3},
    {"ch_mult": (1, 1, 1, 1, 2), "hourglass_blocks": 3},
    {"motion_downsampling": 2, "image_size": 48, "hourglass_blocks": 3, "ch_mult": (1, 2, 1, 1)},
    {"motion_downsampling": 1, "image_size": 32},
    {"keypoints": 1, "heads": 1, "motion_layers": 3, "appearance_layers": 3},
    {"nf": 96, "motion_dim": 96, "appearance_dim": 40, "heads": 8, "motion_hidden": 20},
    {"keypoint_expansion": 5, "dense_expansion": 3, "hourglass_max": 7, "motion_codes": 11, "appearance_codes": 7},
    {"code_allocation": "disjoint"},
    {"code_allocation": "unsplit"},
    {"motion_allocation": "disjoint", "appearance_allocation": "unsplit"},
    {"keypoint_query": "source_driving"},
    {"keypoint_query": "none", "motion_encoder": False, "detach_motion_query": False},
    {"position_embeddings": False},
    {"fused_scales": 1},
    {"fused_scales": 2, "appearance_scales": 1},
    {"added_features": False, "fusion_weight": 0.5},
    {"appearance_scales": 0},
    {"appearance_scales": 1},
    {"motion_compensation": False},
    {"motion_compensation": False, "appearance_scales": 0},
    {"opening_maps": True, "keypoints": 16},
    {"opening_maps": True, "keypoints": 18, "motion_downsampling": 1, "image_size": 32},
    {"source_pixels": True, "opening_maps": True, "keypoints": 16},
    {"source_pixels": True, "motion_compensation": False, "fused_scales": 1},
]


@pytest.mark.parametrize("changes", ODD_SIZES, ids=str)
def test_any_configuration_renders_and_trains(changes: dict[str, Any], tiny: MakeTalker) -> None:
    talker = tiny(**changes)
    source, driving = images(2, talker.image_size), images(2, talker.image_size).flip(-1)
    with torch.no_grad():
        rendered = talker.animate(talker.encode_source(source), driving)
        assert_same(rendered, talker(source, driving).prediction)
    output = talker.train()(source, driving)
    scales = len(talker.config.joining_scales) if talker.config.motion_compensation else 0
    assert (len(output.motion_code), len(output.motion_recon)) == (scales, scales)
    assert len(output.appearance_code) == len(talker.config.compensated_scales)
    total_loss(output).backward()
    idle = [name for name, parameter in talker.named_parameters() if parameter.grad is None]
    assert not idle


def total_loss(output: TalkerOutput) -> Tensor:
    assert output.prediction_lr is not None
    terms = [output.prediction.square().mean(), output.prediction_lr.square().mean()]
    terms += [*output.motion_code, *output.motion_recon, *output.appearance_code]
    return torch.stack(terms).sum()


def test_the_mini_preset_renders() -> None:
    talker = Talker(PRESETS["mini"]).eval()
    with torch.no_grad():
        image = images(1, talker.image_size)
        assert talker.animate(talker.encode_source(image), image).shape == image.shape


def test_one_source_serves_a_batch_of_driving_frames(tiny: MakeTalker) -> None:
    talker, source, driving = tiny().double(), images(1, dtype=torch.float64), images(3, dtype=torch.float64)
    with torch.no_grad():
        together = talker.animate(talker.encode_source(source), driving)
        repeated = talker.animate(talker.encode_source(source.repeat(3, 1, 1, 1)), driving)
        apart = [talker.animate(talker.encode_source(source), frame[None]) for frame in driving]
    assert_same(together, repeated)
    assert_same(together, torch.cat(apart))


def test_the_source_is_encoded_once(tiny: MakeTalker) -> None:
    talker, calls = tiny(), []
    talker.net_g.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    talker.motion_estimator.kp_detector.register_forward_hook(lambda *_: calls.append("keypoints"))
    with torch.no_grad():
        state = talker.encode_source(images(1))
        for _ in range(3):
            talker.animate_keypoints(state, state.keypoints)
    assert calls == ["keypoints", "encoder"]


def test_relative_motion_starts_from_the_source(tiny: MakeTalker) -> None:
    talker, driving = tiny().double(), images(1, dtype=torch.float64)
    with torch.no_grad():
        state = talker.encode_source(images(2, dtype=torch.float64)[:1])
        first = talker.keypoints(driving)
        still = talker.animate_keypoints(state, state.keypoints)
        assert_same(talker.animate(state, driving, reference=first), still)
        assert not torch.allclose(talker.animate(state, driving), still, atol=1e-2)


def test_weights_without_opening_maps_render_the_same_with_them_until_trained(tiny: MakeTalker) -> None:
    without, source, driving = tiny(keypoints=16), images(1), images(2)
    given = Talker(dataclasses.replace(without.config, opening_maps=True)).eval()
    missing = given.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("net_g.opening_enc.") for name in missing)
    with torch.no_grad():
        assert torch.equal(*(model.animate(model.encode_source(source), driving) for model in (without, given)))
        given.net_g.get_parameter(f"opening_enc.{TINY.motion_size}.closed")[:] = 1.0
        given.net_g.get_parameter(f"opening_enc.{TINY.motion_size}.opened")[:] = 1.0
        moved = given.animate(given.encode_source(source), driving)
    assert not torch.allclose(moved, without.animate(without.encode_source(source), driving), atol=1e-3)


def change_codebook(talker: Talker) -> None:
    with torch.no_grad():
        talker.net_g.quantize_motion.embedding.weight.mul_(-1)
        talker.net_g.quantize_app.embedding.weight.mul_(-1)


def change_projection(talker: Talker) -> None:
    with torch.no_grad():
        for name, parameter in talker.named_parameters():
            if "cross_attn.in_proj" in name:
                parameter.mul_(1.5)


def load_other(talker: Talker) -> None:
    other = copy.deepcopy(talker)
    change_codebook(other)
    talker.load_state_dict(other.state_dict())


@pytest.mark.parametrize("change", [change_codebook, change_projection, load_other, Talker.double])
def test_remembered_projections_follow_the_parameters(change: Any, tiny: MakeTalker) -> None:
    talker, image = tiny(), images(1)
    with torch.no_grad():
        before = talker.animate(talker.encode_source(image), image)
        change(talker)
        fresh = tiny().to(next(talker.parameters()).dtype)
        fresh.load_state_dict(talker.state_dict())
        image = image.to(before.dtype if change is not Talker.double else torch.float64)
        after = talker.animate(talker.encode_source(image), image)
        assert torch.equal(after, fresh.animate(fresh.encode_source(image), image))
        assert change is Talker.double or not torch.equal(after, before)


def test_inference_mode_gives_the_same_image(tiny: MakeTalker) -> None:
    talker, image = tiny(), images(1)
    with torch.inference_mode():
        inferred = talker.animate(talker.encode_source(image), image).clone()
    with torch.no_grad():
        assert torch.equal(inferred, tiny().animate(talker.encode_source(image), image))
    total_loss(talker(image, image)).backward()  # nothing remembered under inference mode may enter the graph


def test_batch_norms_see_the_driving_frame_first(tiny: MakeTalker) -> None:
    talker, source, driving = tiny().train(), images(2), images(2).flip(-1)
    expected = copy.deepcopy(talker.motion_estimator.kp_detector)
    talker(source, driving, low_resolution=False)
    expected(driving), expected(source)
    norms = dict(expected.named_buffers())
    for name, buffer in talker.motion_estimator.kp_detector.named_buffers():
        torch.testing.assert_close(buffer, norms[name])


def test_bfloat16_autocast_keeps_coordinates_in_float32(tiny: MakeTalker) -> None:
    talker, source, driving = tiny(), images(2), images(2).flip(-1)
    exact = talker(source, driving)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = talker(source, driving)
    assert output.driving_keypoints.value.dtype == output.driving_keypoints.jacobian.dtype == torch.float32
    assert {tensor.dtype for tensor in [*output.deformations, *output.occlusions]} == {torch.float32}
    losses = [*output.motion_code, *output.motion_recon, *output.appearance_code]
    assert {loss.dtype for loss in losses} == {torch.float32}
    torch.testing.assert_close(output.deformations[-1], exact.deformations[-1], rtol=0, atol=0.1)
    total_loss(output).backward()


def test_tokens_from_outside_the_source_are_not_attended_to(tiny: MakeTalker) -> None:
    net = tiny().net_g
    feature, size = torch.randn(1, net.config.channels[0], 16, 16), net.config.motion_size
    deformation = torch.zeros(1, size, size, 2)
    deformation[:, : size // 2, :, 1] = -1.5  # the upper half comes from above the source
    changed = feature.clone()
    changed[:, :, 0, 0] += 5
    with torch.no_grad():
        codes = net.project_appearance_codes()
        hidden, seen = (
            (net.compensate_appearance(0, x, flow, codes)[:, :, -1, -1])
            for x, flow in ((changed, deformation), (changed, torch.zeros_like(deformation)))
        )
        base_hidden, base_seen = (
            (net.compensate_appearance(0, feature, flow, codes)[:, :, -1, -1])
            for flow in (deformation, torch.zeros_like(deformation))
        )
        everything = net.compensate_appearance(0, feature, deformation + 4, codes)
    # the second layer attends to all tokens, so that the corner's change still arrives, but weaker
    assert (hidden - base_hidden).norm() < (seen - base_seen).norm()
    assert everything.isfinite().all()


def test_an_image_of_another_size_is_refused(tiny: MakeTalker) -> None:
    with pytest.raises(InputError, match="64"):
        tiny().keypoints(images(1, 32))


def test_motion_fingerprint_tells_keypoint_detectors_apart(tiny: MakeTalker) -> None:
    talker = tiny()
    fingerprint = talker.motion_fingerprint()
    change_codebook(talker)
    assert talker.motion_fingerprint() == fingerprint
    with torch.no_grad():
        talker.motion_estimator.kp_detector.kp.weight.mul_(1.001)
    assert talker.motion_fingerprint() != fingerprint


def test_keypoints_are_expectations_inside_the_image(tiny: MakeTalker) -> None:
    keypoints = tiny().keypoints(images(2))
    assert isinstance(keypoints, Keypoints)
    assert keypoints.value.shape == (2, TINY.keypoints, 2)
    assert keypoints.jacobian.shape == (2, TINY.keypoints, 2, 2)
    assert keypoints.value.abs().max() <= 1


def test_untrained_jacobians_are_the_identity() -> None:
    jacobian = Talker(TalkerConfig.from_dict(TINY.to_dict())).eval().keypoints(images(1)).jacobian
    torch.testing.assert_close(jacobian, torch.eye(2).expand_as(jacobian))
