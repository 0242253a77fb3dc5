from pathlib import Path

import numpy as np
from PIL import Image

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


def test_comparison_videos_are_as_fast_as_the_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", [numbered(number) for number in range(6)], rate=12)
    bands: list[Image.Image] = []
    with viewed(find_clips(tmp_path)[0], 64, "clip", tmp_path / "out.mp4", bands) as show:
        for number in range(6):
            show(*(np.full((64, 64, 3), level, np.uint8) for level in (9, number, number)))
    assert len(bands) == 1
    with open_video(tmp_path / "out.mp4") as reader:
        assert reader.info.average_rate == 12
