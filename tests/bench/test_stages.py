import pytest
import torch

from bench.case import Setting, Thunk
from bench.cases import OPS, cases
from bench.model import add_shares, make_scene
from bench.stages import Stopwatch, stage_operations, stage_peaks
from cbtalk import ranges
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


@pytest.mark.parametrize("op", OPS)
def test_operations_of_our_ops_are_counted_as_their_floors_are(op: str) -> None:
    for case in cases(Setting(), [op], direction="fwd"):
        thunk = case.ours(*case.make_inputs(torch.Generator()))
        thunk()  # what is computed once, as the transform of a weight, is no part of a call

        def staged(thunk: Thunk = thunk) -> None:
            with ranges.range("op"):
                thunk()

        assert case.work is not None
        assert stage_operations(staged)["op"] == case.work.operations, case.name


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
