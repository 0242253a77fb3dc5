from pathlib import Path

import pytest

from bench import export
from cbtalk.model.checkpoint import save_weights
from tests.model.conftest import make_tiny


@pytest.mark.slow
def test_the_table_has_every_way(tmp_path: Path) -> None:
    for needed in ("onnxruntime", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    save_weights(tmp_path / "tiny.safetensors", make_tiny())
    lines = list(export.table(str(tmp_path / "tiny.safetensors"), 1, 0.0, 1, compiled=False))
    assert "torch" in lines[0] and sum(line.startswith("| ") for line in lines) == 5
    assert any(line.startswith(f"| {export.OWN} |") and line.endswith("| 1.00 |") for line in lines)
