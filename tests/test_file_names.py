"""Files whose names are any bytes, through everything that opens them."""

import io
import os
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from cbtalk import cli
from cbtalk.file_names import is_utf8, utf8_name
from cbtalk.media.images import read_image
from cbtalk.media.video_reader import open_video
from cbtalk.media.video_writer import VideoWriter
from cbtalk.model.checkpoint import load_weights, read_notes, save_weights
from cbtalk.model.config import PRESETS
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.render.motion_file import Motion, load_motion, save_motion
from tests.helpers.videos import numbered, write_clip

LATIN = os.fsdecode(b"caf\xe9")


def test_a_name_in_utf8_is_used_as_it_is(tmp_path: Path) -> None:
    for name in ("a", "é", "Ж", "\U0001f600"):
        assert is_utf8(tmp_path / name)
        with utf8_name(tmp_path / name) as path:
            assert path == tmp_path / name


def test_any_other_has_a_link(tmp_path: Path) -> None:
    (tmp_path / LATIN).write_bytes(b"x")
    assert not is_utf8(tmp_path / LATIN)
    with utf8_name(tmp_path / LATIN) as path:
        assert is_utf8(path) and path.read_bytes() == b"x"
    assert not path.exists()


def test_motion_files(tmp_path: Path) -> None:
    path = tmp_path / f"{LATIN}.safetensors"
    motion = Motion(Keypoints(torch.zeros(2, 4, 2), torch.zeros(2, 4, 2, 2)), torch.arange(2), Fraction(1), Fraction(1))
    save_motion(path, motion, fingerprint="abc")
    assert load_motion(path, fingerprint="abc", num_keypoints=4).frames == 2


def test_weights(tmp_path: Path) -> None:
    path = tmp_path / f"{LATIN}.safetensors"
    save_weights(path, Talker(PRESETS["mini"]), notes={"steps": "12"})
    load_weights(path)
    assert read_notes(path)["steps"] == "12"


def test_videos_and_images(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "s.mp4", [numbered(i) for i in range(3)], sound="aac")
    source = source.rename(tmp_path / f"{LATIN}.mp4")
    output = tmp_path / f"{LATIN} out.mp4"
    with VideoWriter(
        output, width=64, height=48, rate=Fraction(25), time_base=Fraction(1, 25), audio_from=source
    ) as writer:
        writer.write(numbered(0), 0)
    with open_video(output) as reader:
        assert len(list(reader)) == 1 and reader.info.has_audio
    image = tmp_path / f"{LATIN}.ppm"
    image.write_bytes(b"P6 16 16 255 " + bytes(768))
    assert read_image(image).shape == (16, 16, 3)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_of_any_encoding_is_told(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    told = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(told, encoding=encoding, errors="strict"))
    assert cli.main(["--version"]) == 0
    print(f"Жанна {LATIN} \U0001f600.mp4: 3 frames")
    sys.stdout.flush()
    assert told.getvalue().endswith(b".mp4: 3 frames\n")
