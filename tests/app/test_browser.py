"""The page in a real browser: what a visitor does, sees and takes home."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbtalk.batch import BatchOptions
from cbtalk.media.video_reader import open_video
from tests.app.conftest import free_port
from tests.helpers.videos import write_clip

pytest.importorskip("gradio", reason="gradio is not installed (extra app)")
data = pytest.importorskip("skimage.data", reason="scikit-image, which carries the portrait, is not installed")
pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")

from cbtalk.app import AppOptions, Limits, served  # noqa: E402 - needs Gradio
from examples import browser  # noqa: E402 - needs selenium
from examples.browser import Visitor  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(None in (browser.CHROMIUM, browser.DRIVER), reason="chromium and its driver are not installed"),
]

FRAMES = 6
PACE = re.compile(r"^[\d.]+ images a second, \d+ ms from a frame's arrival to its image, \d+ frames left out$")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait, a clip and a camera in which the astronaut moves, and an image that is none."""
    folder = tmp_path_factory.mktemp("files")
    photo = Image.fromarray(data.astronaut())
    photo.save(folder / "face.png")
    moved = [np.array(photo.crop((x, 0, x + 320, 240))) for x in (*range(40, 80, 4), *range(80, 40, -4))]
    write_clip(folder / "clip.mp4", moved[:FRAMES])
    write_clip(folder / "camera.y4m", moved, codec="wrapped_avframe", muxer="yuv4mpegpipe")
    (folder / "broken.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def address(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served with a tiny model."""
    options = AppOptions(
        BatchOptions(weights=str(weights), workers=1, threads=1),
        Limits(upload=1, frames=50, megapixels=1, jobs=3),
        port=free_port(),
        output=tmp_path_factory.mktemp("batches"),
    )
    with served(options) as address:
        yield address


@pytest.fixture(scope="module")
def visitor(address: str, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    with browser.visitor(address, tmp_path_factory.mktemp("downloads"), files / "camera.y4m") as there:
        yield there


def test_a_portrait_is_uploaded_animated_played_and_taken_home(visitor: Visitor, files: Path) -> None:
    visitor.visit("Animate")
    visitor.upload("#portrait", files / "face.png")
    visitor.until(lambda: visitor.script("return document.querySelector('#preview img')?.naturalWidth") == 512)
    visitor.upload("#clip", files / "clip.mp4")
    visitor.until(lambda: "clip.mp4" in visitor.text("#clip").replace("\n", ""))
    visitor.click("#animate")
    duration = visitor.until(
        lambda: visitor.script(
            "const v = document.querySelector('#result video'); return v?.readyState >= 3 && v.duration"
        )
    )
    assert duration == pytest.approx(FRAMES / 25, abs=0.02)
    assert visitor.text("#report").startswith(f"face__clip.mp4: {FRAMES} frames")
    visitor.click("#download")
    video = visitor.downloads / "face__clip.mp4"
    visitor.until(video.is_file)
    with open_video(video) as reader:
        assert len(list(reader)) == FRAMES


def test_a_bad_file_shows_the_one_line_of_the_command_line(visitor: Visitor, files: Path) -> None:
    visitor.visit("Animate")
    visitor.upload("#portrait", files / "broken.png")
    line = "broken.png: is not an image of a known kind; convert it to PNG or JPEG"
    visitor.until(lambda: line in visitor.text("body"))
    assert "Traceback" not in visitor.text("body") and str(files) not in visitor.text("body")


def test_the_camera_drives_the_portrait_and_what_changes_is_seen(visitor: Visitor, files: Path) -> None:
    visitor.visit("Live")
    visitor.upload("#live-portrait", files / "face.png")
    visitor.until(lambda: "Ready" in visitor.text("#screen p"))
    visitor.click("#webcam button", "Access Webcam")
    visitor.click("#webcam button", "Record")
    images: set[str] = set()

    def seen() -> bool:
        if PACE.match(visitor.text("#screen p")):
            images.add(visitor.script("return document.querySelector('#screen img').src"))
        return len(images) >= 4

    visitor.until(seen)
    before = len(images)
    visitor.click("#anew")
    visitor.until(lambda: seen() and len(images) > before)
    visitor.click("#webcam button", "Stop")
    assert len(images) > before >= 4  # the camera's images differ, and so do those of the portrait


def begin_a_batch(visitor: Visitor, files: Path) -> None:
    visitor.visit("Batch")
    visitor.upload("#batch-files", files / "face.png", files / "clip.mp4")
    visitor.until(lambda: "face.png" in visitor.text("#jobs") and "clip.mp4" in visitor.text("#jobs"))
    visitor.click("#render-all")


def test_a_batch_is_rendered_and_its_results_are_there(visitor: Visitor, files: Path) -> None:
    begin_a_batch(visitor, files)
    visitor.until(lambda: "1 done, 0 failed" in visitor.text("#batch-state") and "See " in visitor.text("#batch-state"))
    visitor.until(lambda: "report.csv" in visitor.text("#results").replace("\n", ""))
    assert "face__clip.mp4" in visitor.text("#batch-report")


def test_a_batch_is_stopped_by_its_button(visitor: Visitor, files: Path) -> None:
    begin_a_batch(visitor, files)
    visitor.until(lambda: "1 running" in visitor.text("#batch-state"))
    visitor.click("#stop-batch")
    visitor.click("#stop-batch")
    visitor.until(lambda: "0 done, 0 failed" in visitor.text("#batch-state"))
    visitor.until(lambda: "report.csv" in visitor.text("#results").replace("\n", ""))
    assert "waiting" in visitor.text("#batch-report")
    assert "face__clip" not in visitor.text("#results")


def test_the_page_asks_nobody_but_this_machine(visitor: Visitor) -> None:
    """Of all that the tests before this one did."""
    for tab in ("Animate", "Live", "Batch"):
        visitor.visit(tab)
    asked = visitor.requests()
    assert asked and {url for url in asked if not url.startswith(visitor.address)} == set()
    assert visitor.address.startswith("http://127.0.0.1:")


def test_an_upload_over_the_limit_is_refused(address: str) -> None:
    def upload(size: int) -> int:
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        body = head + bytes(size) + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{address}gradio_api/upload", body, headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as failure:
            return failure.code

    assert (upload(900_000), upload(1_100_000)) == (200, 413)
