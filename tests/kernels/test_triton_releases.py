"""The Triton kernels compiled by each release that cbtalk accepts; the other tests use the installed one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cbtalk import _triton
from tests.kernels.aot import compile_in_process

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(_triton.why_not_triton() is not None, reason=str(_triton.why_not_triton())),
]

# The factors the other way round, which 3.6 and 3.7 make a product on tensor cores, of columns that it repeats.
DOUBLED_SCORES = ("b[None, :, :] * a[:, :, None], axis=1", "a[:, :, None] * b[None, :, :], axis=1")
# Bytes of stack a thread where a release spills all the same; 3.9 does not any more.
SPILLED = {("3.8.0", "nearest_code", 80): 64, ("3.8.0", "nearest_code", 100): 24}
RELEASES = ["3.6.0", "3.7.1", "3.8.0", "3.9.0"]  # from the oldest of pyproject.toml on; torch 2.11 brings 3.6


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that release of Triton alone: torch and the rest are those of this environment."""
    folder = tmp_path_factory.mktemp(f"triton-{request.param}", numbered=False)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    installed = subprocess.run([*command, f"triton=={request.param}"], capture_output=True, text=True)
    if installed.returncode != 0:
        pytest.skip(f"triton {request.param} cannot be installed here: {installed.stderr.strip()[-300:]}")
    return folder


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("op", ["codebook_attention", "flow_warp", "group_norm", "nearest_code"])
def test_the_kernels_keep_their_instructions_and_do_not_spill(release: Path, op: str, capability: int) -> None:
    compiled = compile_in_process(op, capability, release)
    assert not [one for one in compiled if one.missing]
    known = SPILLED.get((release.name.removeprefix("triton-"), op, capability), 0)
    assert max(one.stack for one in compiled) == known, compiled


def test_scores_of_repeated_columns_are_found(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if release.name.startswith(("triton-3.8", "triton-3.9")):
        pytest.skip("from 3.8 on the order of the factors makes no difference")
    monkeypatch.setenv("CBTALK_PLANT", json.dumps(["codebook_attention", *DOUBLED_SCORES]))
    found = {one.kernel: one.missing for one in compile_in_process("codebook_attention", 90, release)}
    assert found["narrow_fwd_kernel"] == ("not mma",)
