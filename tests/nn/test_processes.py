"""Two processes, each with a part of every batch, do what one does with the whole batch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from cbtalk.nn import VectorQuantize
from cbtalk.nn.start import rows_for_codes

# Without randomness, so that two processes can be compared with one.
EQUAL: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.7},
    "learned": {"ema": None},
    "cosine heads": {"ema": 0.7, "cosine": True, "heads": 2},
}
RANDOM: dict[str, dict[str, Any]] = {
    "started ema": {"ema": 0.7, "kmeans_steps": 4, "revive_below": 3.0, "heads": 2},
    "started learned": {"ema": None, "kmeans_steps": 4, "revive_below": 3.0, "heads": 2},
}


class Model(nn.Module):
    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(12, 12)
        self.quantize = VectorQuantize(12, 10, **options)

    def forward(self, x: Tensor, ignored: Tensor | None) -> Tensor:
        found = self.quantize(self.layer(x), ignored)
        return found.quantized.square().mean() + found.loss


def batches() -> list[tuple[Tensor, Tensor | None]]:
    """As many rows that count in the first half as in the second: a loss is a mean over them."""
    generator = torch.Generator().manual_seed(5)
    found: list[tuple[Tensor, Tensor | None]] = []
    for step in range(3):
        x = torch.randn(40, 12, generator=generator)
        ignored = torch.rand(20, generator=generator) < 0.3
        found.append((x, torch.cat([ignored, ignored.flip(0)]) if step == 1 else None))
    return found


def train(model: nn.Module, part: slice) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, ignored in batches():
        optimizer.zero_grad()
        model(x[part], None if ignored is None else ignored[part]).backward()
        optimizer.step()


def given_rows(rank: int) -> tuple[Tensor, Tensor]:
    """Rows for 8 codes: the first process has rows 0 .. 9, of which it ignores half, the second 100 and 101."""
    rows = torch.arange(10.0)[None, :, None] if rank == 0 else torch.tensor([[[100.0], [101.0]]])
    ignored = torch.arange(10) % 2 == 0 if rank == 0 else None
    return rows_for_codes(rows, ignored, torch.ones(1, 8, dtype=torch.bool))


def in_a_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    for name, options in (EQUAL | RANDOM).items():
        for broadcast in (False, True):
            model = Model(options)
            torch.manual_seed(rank)
            train(DistributedDataParallel(model, broadcast_buffers=broadcast), slice(20 * rank, 20 * (rank + 1)))
            results[f"{name}, {broadcast}"] = copy.deepcopy(model.state_dict())
    results["rows"] = given_rows(rank)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    spawn(in_a_process, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("broadcast", [False, True])
@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_train_as_one_with_both_batches(
    results: list[dict[str, Any]], name: str, broadcast: bool
) -> None:
    first, second = (result[f"{name}, {broadcast}"] for result in results)
    model = Model(EQUAL[name])
    train(model, slice(None))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, model.state_dict())


@pytest.mark.parametrize("broadcast", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_k_means_and_revival_give_all_processes_one_codebook(
    results: list[dict[str, Any]], name: str, broadcast: bool
) -> None:
    first, second = (result[f"{name}, {broadcast}"] for result in results)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert first["quantize.started"] and (first["quantize.perplexity"] > 3).all()


def test_codes_get_rows_of_all_processes_and_none_twice(results: list[dict[str, Any]]) -> None:
    (found, got), other = (result["rows"] for result in results)
    torch.testing.assert_close((found, got), other)
    given = found[got].flatten().tolist()
    assert len(given) == len(set(given)) == 6  # 4 of the 5 of the first process, the 2 of the second
    assert {100.0, 101.0} < set(given) <= {1.0, 3.0, 5.0, 7.0, 9.0, 100.0, 101.0}
