import sys

import pytest
import torch

pytest.importorskip("skimage.data", reason="scikit-image, whose portrait the benchmark uses, is not installed")

from bench import precision


@pytest.mark.slow
def test_a_line_for_every_model_and_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "STEP", 60)
    monkeypatch.setattr(precision, "SHAPES", ((16, 16),))
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["precision", "--models", "mini", "--rounds", "1", "--threads", threads])
    precision.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("AMX: ") and "auto takes torch." in line]
    measured = [line.split(" ms")[0].split(":")[0] for line in lines[-4:]]
    assert measured == ["conv3x3 4 x 16 x 16 x 16, GFLOP/s", "mini, fp32", "mini, bf16", "mini, bf16"]
    assert "of float32's" in lines[-2] and "3 images differ by" in lines[-1]
