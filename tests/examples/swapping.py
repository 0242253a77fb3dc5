"""A plugin of pytest that swaps, and writes down what served the calls of quantisers."""

import json
import os
from pathlib import Path

from examples import swap_vector_quantize as example


def pytest_configure() -> None:
    example.swap()


def pytest_unconfigure() -> None:
    Path(os.environ["CBTALK_VQ_CALLS"]).write_text(json.dumps(example.CALLS))
