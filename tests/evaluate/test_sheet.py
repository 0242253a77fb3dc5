from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.errors import InputError
from cbtalk.evaluate.sheet import CELL, MOMENTS, band, save_sheet, viewed
from cbtalk.media.clips import find_clips
from cbtalk.media.video_reader import open_video
from tests.helpers.videos import numbered, write_clip


def test_sheet_shows_source_driving_and_result(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for number, file in enumerate(files):
        moments = [(np.full((8, 8, 3), 60 + number, np.uint8), np.full((8, 8, 3), 90, np.uint8))] * 2
        band(f"band {number} \udcff", np.full((8, 8, 3), 30, np.uint8), moments).save(file)
    save_sheet(tmp_path / "sheet.png", files)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.array(image)
    height = sheet.shape[0] // 2
    assert sheet.shape[1] == (1 + MOMENTS) * CELL
    for number in range(2):
        top = height * (number + 1) - 2 * CELL  # below the caption
        assert sheet[top + 5, 5, 0] == 30
        assert sheet[top + 5, CELL + 5, 0] == 60 + number and sheet[top + CELL + 5, 2 * CELL + 5, 0] == 90


def make_sheet(path: Path, *, driving: int, result: int, beside: Path | None = None) -> np.ndarray:
    files = [path.with_name(f"{path.stem}-{number}.png") for number in range(2)]
    for number, file in enumerate(files):
        moments = [(np.full((8, 8, 3), driving + number, np.uint8), np.full((8, 8, 3), result + number, np.uint8))] * 2
        band(f"band {number}", np.full((8, 8, 3), 30, np.uint8), moments).save(file)
    save_sheet(path, files, beside)
    with Image.open(path) as image:
        return np.array(image)


def test_results_of_other_weights_are_shown_below(tmp_path: Path) -> None:
    make_sheet(tmp_path / "old.png", driving=60, result=90)
    sheet = make_sheet(tmp_path / "new.png", driving=60, result=120, beside=tmp_path / "old.png")
    height = sheet.shape[0] // 2
    for number in range(2):
        rows = [sheet[height * (number + 1) - row * CELL + 5, 2 * CELL + 5, 0] for row in (3, 2, 1)]
        assert rows == [60 + number, 120 + number, 90 + number]


def test_a_sheet_of_other_clips_is_refused_beside(tmp_path: Path) -> None:
    make_sheet(tmp_path / "other.png", driving=61, result=90)
    (tmp_path / "text.png").write_text("no image")
    for name in ("other.png", "text.png"):
        with pytest.raises(InputError, match=name):
            make_sheet(tmp_path / "new.png", driving=60, result=120, beside=tmp_path / name)
    assert not (tmp_path / "new.png").exists()


def test_comparison_videos_are_as_fast_as_the_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", [numbered(number) for number in range(6)], rate=12)
    bands: list[Image.Image] = []
    with viewed(find_clips(tmp_path)[0], 64, "clip", tmp_path / "out.mp4", bands) as show:
        for number in range(6):
            show(*(np.full((64, 64, 3), level, np.uint8) for level in (9, number, number)))
    assert len(bands) == 1
    with open_video(tmp_path / "out.mp4") as reader:
        assert reader.info.average_rate == 12
