"""CUDA graphs of a function: when it is captured, what is copied, and that results are those of the function.

Without a GPU a stand-in takes the part of the capture: like a graph it reads the tensors of the capture alone, and
writes its results into the same memory every time.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cbtalk.model.cuda_graphs import CudaGraphs, captured
from cbtalk.model.talker import Talker
from cbtalk.model.transfers import download, upload
from cbtalk.render.animation import Animator
from tests.golden import weights
from tests.helpers.talkers import TINY
from tests.kernels.where import needs_gpu

Arguments = tuple[tuple[Tensor, Tensor], Tensor]


class StandIn:
    """Captures a function as a list of what it is called with, and replays it into its first results."""

    def __init__(self) -> None:
        self.pools: list[object] = []
        self.replays = 0

    def __call__(self, function: Callable[[], Any], device: torch.device, pool: Any) -> tuple[Any, Any]:
        stand_in, results = self, function()
        self.pools.append(pool)

        class Graph:
            def replay(self) -> None:
                stand_in.replays += 1
                for old, new in zip(results, function(), strict=True):
                    old.copy_(new)

            def pool(self) -> str:
                return "the first graph's"

        return Graph(), results


class Function:
    """Sums and products of a state, which stays, and a batch; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, state: tuple[Tensor, Tensor], batch: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return state[0] + batch, state[1] * batch.sum(dim=1, keepdim=True)


def state(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, generator=generator), torch.rand(1, 2, generator=generator)


def batch(size: int, seed: int) -> Tensor:
    return torch.rand(size, 3, generator=torch.Generator().manual_seed(seed))


def test_results_are_those_of_the_function_and_stay() -> None:
    """Batches of several sizes, of two sources, in turns; every result is kept to the end before it is judged."""
    stand_in = StandIn()
    graphs = CudaGraphs(Function(), stand_in)
    first, second = state(1), state(2)
    order = [
        (first, 4),
        (first, 4),
        (first, 4),
        (first, 1),
        (second, 4),
        (second, 4),
        (first, 1),
        (first, 4),
        (first, 2),
    ]
    calls: list[Arguments] = [(source, batch(size, seed)) for seed, (source, size) in enumerate(order)]
    results = [graphs(*arguments) for arguments in calls]
    for found, arguments in zip(results, calls, strict=True):
        for one, other in zip(found, Function()(*arguments), strict=True):
            assert torch.equal(one, other)
    assert stand_in.replays == 6  # of nine calls, three were the first with their sizes
    assert stand_in.pools == [None, "the first graph's"]
    assert graphs.failure is None


def test_an_incomplete_batch_that_comes_once_is_not_captured() -> None:
    function, stand_in = Function(), StandIn()
    graphs = CudaGraphs(function, stand_in)
    for size in (4, 2):
        graphs(state(1), batch(size, 0))
    assert function.calls == 2 and stand_in.pools == []


def test_what_stays_is_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, source = CudaGraphs(Function(), StandIn()), state(1)
    for seed in range(2):
        graphs(source, batch(4, seed))
    copied: list[torch.Size] = []
    copy = Tensor.copy_

    def noted(self: Tensor, other: Tensor) -> Tensor:
        copied.append(self.shape)
        return copy(self, other)

    monkeypatch.setattr(Tensor, "copy_", noted)
    graphs(source, batch(4, 3))
    assert copied.count(torch.Size([4, 3])) == 2 and torch.Size([1, 3]) not in copied  # the batch, and a result


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_another_dtype_or_layout_is_another_graph(dtype: torch.dtype) -> None:
    graphs = CudaGraphs(lambda x: (x * 2,), StandIn())
    x = torch.rand(4, 3, 2, 2)
    for _ in range(3):
        graphs(x)
    other = x.to(dtype).contiguous(memory_format=torch.channels_last)
    for _ in range(3):
        [found] = graphs(other)
        assert found.dtype == dtype and torch.equal(found, other * 2)


def test_a_capture_that_fails_is_told_and_not_tried_again() -> None:
    attempts = []

    def fail(*_: object) -> Any:
        attempts.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be ...")

    graphs = CudaGraphs(Function(), fail)
    for seed in range(5):
        [found, _] = graphs(state(1), batch(4, seed))
        assert torch.equal(found, state(1)[0] + batch(4, seed))
    assert len(attempts) == 1
    assert graphs.failure == "operation not permitted when stream is capturing"


@needs_gpu
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_talker_on_a_gpu_gives_the_same_images_by_its_graphs(batch_size: int) -> None:
    talker = Talker(TINY).eval()
    weights.fill(talker.net_g)
    weights.fill(talker.motion_estimator)
    talker = talker.to("cuda")
    animator = Animator(talker)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for source in (torch.rand(1, 3, 64, 64, generator=generator).cuda() * 2 - 1 for _ in range(2)):
            encoded = talker.encode_source(source)
            for _ in range(3):
                images = torch.randint(0, 256, (batch_size, 64, 64, 3), dtype=torch.uint8, generator=generator).numpy()
                frames, finite = animator.animate(encoded, animator.detect(images))
                plain = Animator(talker)  # whose first calls are plain
                expected, _ = plain.animate(encoded, plain.detect(images))
                assert finite.all() and (frames.int() - expected.int()).abs().max() <= 1
    assert animator.failure is None


@needs_gpu
def test_work_of_another_thread_does_not_end_a_capture() -> None:
    """As the encoder's thread waits for an event while the next batch is captured."""
    x, stop = torch.rand(1 << 16, device="cuda"), threading.Event()

    def transfer() -> None:
        while not stop.is_set():
            download(upload(torch.rand(1 << 16), x.device) + 1).wait()

    thread = threading.Thread(target=transfer)
    thread.start()
    try:
        for _ in range(20):
            graph, result = captured(lambda: x * 2, x.device)
            graph.replay()
    finally:
        stop.set()
        thread.join()
    assert torch.equal(result, x * 2)
