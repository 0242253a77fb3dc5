"""Ten clips and ten thousand take nearly the same memory."""

from pathlib import Path

import pytest

from bench.clips_memory import make_clips, memory

MOST_MIB = 40.0  # more; the frames of all, decoded, are 2.8 GiB


@pytest.mark.slow
def test_ten_thousand_clips_take_the_memory_of_ten(tmp_path: Path) -> None:
    figures = []
    for count in (10, 10_000):
        make_clips(tmp_path / str(count), count, links=True)
        figures.append(memory(tmp_path / str(count), "files"))
    few, many = figures
    assert many["parent"] < few["parent"] + MOST_MIB, figures
    assert many["worker"] < few["worker"] + MOST_MIB, figures
