"""Every example runs and says what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import model_drawings

EXAMPLES = Path(__file__).parents[2] / "examples"


def output_of(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def errors_in(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"error ([\d.e+-]+\d)", output)]


def test_every_example_has_a_test() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"__init__.py"}
    here = {"train_vqvae.py", "swap_vector_quantize.py", "warp_and_attend.py", "demo_image.py", "model_drawings.py"}
    of_the_guides = {"paste_image.py"}
    of_the_page = {"app_image.py", "browser.py", "made_motions.py"}  # tests/app
    assert names == here | of_the_guides | of_the_page


def test_the_drawings_in_docs_are_those_of_the_script(tmp_path: Path) -> None:
    model_drawings.main(tmp_path)
    for drawing in tmp_path.iterdir():
        assert drawing.read_text() == (EXAMPLES.parent / "docs" / "images" / drawing.name).read_text()
    assert len(list(tmp_path.iterdir())) == 4


def test_the_demo_image_moves(tmp_path: Path) -> None:
    output_of("demo_image.py", str(tmp_path / "demo.gif"), "--frames", "2")
    with Image.open(tmp_path / "demo.gif") as image:
        assert image.format == "GIF" and getattr(image, "n_frames", 1) == 2
        first = np.asarray(image.convert("RGB"), dtype=int)
        image.seek(1)
        change = np.abs(np.asarray(image.convert("RGB"), dtype=int) - first).max(axis=(0, 2))
    side = len(change) // 3
    assert not change[:side].any() and change[side : 2 * side].any() and change[2 * side :].any()


@pytest.mark.slow
def test_the_photo_of_the_guide_comes_back_with_another_face(tmp_path: Path) -> None:
    output_of("paste_image.py", str(tmp_path / "paste.webp"))
    with Image.open(tmp_path / "paste.webp") as image:
        found, square, pasted = np.split(np.asarray(image.convert("RGB"), dtype=int), 3, axis=1)
    change = np.abs(pasted - found).max(axis=2)
    head = change[40:120, 110:210]
    assert np.median(change[150:]) < 10 < np.percentile(head, 90)
    assert np.abs(square - found).mean() > 20


@pytest.mark.slow
def test_the_vqvae_learns_the_digits() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    output = output_of("train_vqvae.py", "--steps", "100")
    errors = errors_in(output)
    assert errors[-1] < 0.04 and errors[-1] < errors[0], output
    assert re.search(r"[\d.]+ of 64 codes in use", output) and re.search(r"\d+ codes chosen", output), output


@pytest.mark.slow
def test_a_flow_and_a_codebook_reproduce_an_image() -> None:
    errors = errors_in(output_of("warp_and_attend.py", "--steps", "150"))
    assert errors[-1] < errors[0] / 100


@pytest.mark.slow
def test_the_swap_is_timed() -> None:
    pytest.importorskip("vector_quantize_pytorch", reason="vector-quantize-pytorch is not installed")
    output = output_of("swap_vector_quantize.py", "--rows", "100", "--codes", "20", "--rounds", "1")
    assert re.search(r"original [\d.]+ ms, with cbtalk [\d.]+ ms: [\d.]+ times as fast", output), output


def test_without_the_package_there_is_one_clear_line() -> None:
    program = "import sys, runpy; sys.modules['vector_quantize_pytorch'] = None; runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-c", program, str(EXAMPLES / "swap_vector_quantize.py")]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "vector-quantize-pytorch is not installed" in result.stderr
