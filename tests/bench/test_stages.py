import torch

from bench import work
from bench.model import add_shares, make_scene
from bench.stages import Stopwatch, stage_operations, stage_peaks
from cbtalk import ranges
from cbtalk.ops import codebook_attention, conv3x3, transform_weight
from tests.bench.test_figures import CEILINGS

STAGES = ["keypoints", "dense_motion"]


def test_stages_of_the_model_in_their_order() -> None:
    scene = make_scene("mini", "cpu")
    with torch.inference_mode():
        watch = Stopwatch(scene.animate(2), "cpu")
        watch()
        watch()
        operations, peaks = stage_operations(scene.animate(1)), stage_peaks(scene.animate(1), "cpu")
    seconds = watch.medians(1)
    scales = [f"{kind}_{scale}" for scale in scene.talker.config.scales for kind in ("compensation", "generator")]
    assert list(seconds) == STAGES + scales
    assert all(value > 0 for figures in (seconds, operations, peaks) for value in figures.values())
    assert set(operations) == set(seconds) <= set(peaks)
    rows = [{"operations": operations[name], "seconds": seconds[name]} for name in seconds]
    add_shares({"stages": rows}, "cpu", CEILINGS)
    assert rows[0]["share"] == operations["keypoints"] / seconds["keypoints"] / CEILINGS.float32


def test_operations_of_our_ops_are_counted_as_their_floors_are() -> None:
    x = torch.randn(1, 32, 40, 40).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(48, 32, 3, 3), torch.randn(48)
    transformed = transform_weight(weight, 36)
    query, codes = torch.randn(2, 64, 8 * 4), torch.randn(100, 8 * 4)

    def both() -> None:
        with ranges.range("conv"):
            conv3x3(x, weight, bias, transformed=lambda points: transformed)
        with ranges.range("attention"):
            codebook_attention(query, codes, codes, heads=8)

    counted = stage_operations(both)
    conv = work.conv3x3(1, 32, 48, 40, upsample=False, dtype=torch.float32)
    attention = work.attention(2 * 8 * 64, 100, 4, rows=0, products=2, dtype=torch.float32)
    assert counted == {"conv": conv.operations, "attention": attention.operations}


def test_the_peak_of_a_stage_does_not_count_what_came_before() -> None:
    x = torch.zeros(1 << 18)  # 1 MiB

    def two() -> torch.Tensor:
        with ranges.range("first"):
            y = x + 1
        with ranges.range("second"):
            return (y * 2) * 3

    peaks = stage_peaks(two, "cpu")
    assert 1 << 20 <= peaks["first"] < 1.1 * (1 << 20)
    assert 2 << 20 <= peaks["second"] < 2.1 * (1 << 20)
