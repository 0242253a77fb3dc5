"""A plugin of pytest that seeds every test and, where CBTALK_VQ_CALLS names a file, swaps and counts the calls."""

import json
import os
from pathlib import Path

import torch

from examples import swap_vector_quantize as example

REPORT = os.environ.get("CBTALK_VQ_CALLS")


def pytest_configure() -> None:
    if REPORT:
        example.swap()


def pytest_runtest_setup() -> None:
    torch.manual_seed(0)  # some of the tests draw numbers with which they fail now and then


def pytest_unconfigure() -> None:
    if REPORT:
        Path(REPORT).write_text(json.dumps(example.CALLS))
