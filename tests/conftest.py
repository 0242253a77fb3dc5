import os
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton's interpreter runs the kernels; it has to be chosen before triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The golden arrays and the clips, where the checkout lies beside them; the other tests do not need them.
_SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not _SHARED.is_dir():
        pytest.skip(f"the folder of golden arrays and clips is not at {_SHARED}")
    return _SHARED


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("benchmark_only", default=True):
        config.option.benchmark_disable = True  # one call is a test, no measurement to report
    # More threads than cores (several test processes on one machine) makes everything slower than one thread.
    torch.set_num_threads(min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
