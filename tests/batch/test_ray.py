"""A batch on a cluster of Ray outlives its actors and nodes."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cbtalk.batch import BatchOptions, read_ledger, run_batch
from cbtalk.errors import ConfigError
from tests.batch import stand_in

ray = pytest.importorskip("ray", reason="ray is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with room for two workers each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of actors
    monkeypatch.setattr("cbtalk.batch.ray_pool.Worker", stand_in.Worker)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_forty_jobs_with_an_actor_and_a_node_killed(tmp_path: Path, cluster: Any) -> None:
    second = cluster.add_node(num_cpus=2)
    names = ["once" if number == 3 else "slow" if number % 10 == 0 else "a" for number in range(40)]
    jobs = [stand_in.job(tmp_path, name, number) for number, name in enumerate(names)]
    calls = tmp_path / "out" / "calls"

    def kill_node() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and (not calls.exists() or len(calls.read_text().split()) < 8):
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_node)
    killer.start()
    options = BatchOptions(workers=4, threads=1, ray=cluster.address, retries=3)
    summary = run_batch(jobs, tmp_path / "out", options)
    killer.join()
    assert (summary.done, summary.failed, summary.stopped) == (40, 0, None)
    entries = read_ledger(tmp_path / "out")
    assert {entry.state for entry in entries} == {"done"}
    assert all((tmp_path / "out" / entry.output).stat().st_size == entry.bytes for entry in entries)
    assert len(calls.read_text().split()) <= 40 + 1 + 2  # the actor's job and at most both of the node's were repeated


def test_no_cluster_is_one_clear_line(tmp_path: Path) -> None:
    jobs = [stand_in.job(tmp_path, "a")]
    with pytest.raises(ConfigError, match="no cluster"):
        run_batch(jobs, tmp_path / "out", BatchOptions(ray="127.0.0.1:1"))
