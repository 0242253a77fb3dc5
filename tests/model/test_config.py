import dataclasses
import json
from typing import Any

import pytest

from cbtalk.errors import ConfigError
from cbtalk.model.config import PRESETS, TalkerConfig


def test_the_paper_sizes_derive_from_the_configuration() -> None:
    paper = PRESETS["paper"]
    assert paper.scales == (32, 64, 128, 256)
    assert paper.channels == (256, 128, 128, 64)
    assert (paper.latent_size, paper.motion_size, paper.pixels_per_unit) == (32, 64, 31.5)


@pytest.mark.parametrize("preset", PRESETS)
def test_survives_json(preset: str) -> None:
    config = dataclasses.replace(PRESETS[preset], appearance_scales=2, code_allocation="disjoint")
    assert TalkerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image_sise": 256}, "image_sise"),
        ({"image_size": 250}, "image_size"),
        ({"image_size": "256"}, "image_size"),
        ({"image_size": 1 << 40}, "image_size"),
        ({"nf": 48}, "nf"),
        ({"nf": True}, "nf"),
        ({"motion_dim": 16}, "motion_dim"),
        ({"heads": 7}, "heads"),
        ({"ch_mult": []}, "ch_mult"),
        ({"ch_mult": 4}, "ch_mult"),
        ({"ch_mult": [1, 0]}, "ch_mult"),
        ({"hourglass_blocks": 7}, "hourglass_blocks"),
        ({"appearance_layers": 10**6}, "appearance_layers"),
        ({"code_allocation": "split"}, "code_allocation"),
        ({"appearance_scales": 5}, "appearance_scales"),
        ({"motion_allocation": "split"}, "motion_allocation"),
        ({"keypoint_query": "source"}, "keypoint_query"),
        ({"fused_scales": 0}, "fused_scales"),
        ({"fusion_weight": "1"}, "fusion_weight"),
        ({"fusion_weight": float("nan")}, "fusion_weight"),
        ({"motion_encoder": None}, "motion_encoder"),
        ({"motion_compensation": 1}, "motion_compensation"),
        ({"motion_codes": 3}, "code"),
    ],
)
def test_contradictions_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        TalkerConfig.from_dict(values)
