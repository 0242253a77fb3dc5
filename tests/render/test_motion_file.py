import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cbtalk.errors import InputError
from cbtalk.model.keypoints import Keypoints
from cbtalk.render.motion_file import Motion, load_motion, save_motion

K = 4


@pytest.fixture
def motion() -> Motion:
    keypoints = Keypoints(torch.randn(6, K, 2), torch.randn(6, K, 2, 2))
    return Motion(keypoints, torch.tensor([0, 2, 3, 7, 8, 11]), Fraction(1001, 30000), Fraction(30000, 1001))


@pytest.fixture
def saved(motion: Motion, tmp_path: Path) -> Path:
    save_motion(tmp_path / "motion.safetensors", motion, fingerprint="abc")
    return tmp_path / "motion.safetensors"


def read(path: Path, fingerprint: str = "abc", num_keypoints: int = K) -> Motion:
    return load_motion(path, fingerprint=fingerprint, num_keypoints=num_keypoints)


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, metadata: dict[str, str] | None = None) -> None:
    """Write the file again with some tensors and metadata changed; an empty string takes an entry out."""
    with safe_open(path, framework="pt") as file:
        entries = {**file.metadata(), **(metadata or {})}
    save_file(
        {**load_file(path), **(tensors or {})}, path, metadata={key: value for key, value in entries.items() if value}
    )


def test_round_trip(saved: Path, motion: Motion) -> None:
    loaded = read(saved)
    torch.testing.assert_close(loaded.keypoints, motion.keypoints, rtol=0, atol=0)
    assert torch.equal(loaded.pts, motion.pts)
    assert (loaded.time_base, loaded.average_rate) == (motion.time_base, motion.average_rate)


def test_the_file_is_safetensors_with_a_readable_header(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == {  # noqa: SIM118 - no mapping
            "value": [6, K, 2],
            "jacobian": [6, K, 2, 2],
            "pts": [6],
        }
        metadata = file.metadata()
    assert metadata["frames"] == "6"
    assert metadata["time_base"] == "1001/30000"
    assert metadata["motion_fingerprint"] == "abc"


def test_the_file_can_be_read_by_whom_the_user_allows(saved: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(("fingerprint", "num_keypoints"), [("other", K), ("abc", K + 1)])
def test_motion_of_another_model_is_refused(saved: Path, fingerprint: str, num_keypoints: int) -> None:
    with pytest.raises(InputError, match=str(saved)):
        read(saved, fingerprint, num_keypoints)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 300, -1])
def test_a_truncated_file_is_refused(saved: Path, size: int) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[:size])
    with pytest.raises(InputError, match=str(saved)):
        read(saved)


def hostile_header(size: int, header: bytes) -> bytes:
    return size.to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "data",
    [
        b"plain text, no tensors at all",
        hostile_header(2**62, b"{}"),
        hostile_header(2, b"{}"),
        hostile_header(9, b"[[[[[[[[["),
        hostile_header(8, b"\xff" * 8),
        hostile_header(
            60, json.dumps({"pts": {"dtype": "I64", "shape": [2**40], "data_offsets": [0, 8]}}).encode()[:60]
        ),
    ],
)
def test_a_file_of_anything_else_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "motion.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=str(path)):
        read(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": ""},
        {"format": "cbtalk-weights-1"},
        {"version": "3"},
        {"time_base": ""},
        {"time_base": "1/0"},
        {"time_base": "-1/25"},
        {"time_base": "0"},
        {"time_base": "one/25"},
        {"average_rate": "1" * 5000},
        {"average_rate": f"{2**40}/3"},
    ],
)
def test_metadata_that_makes_no_sense_is_refused(saved: Path, metadata: dict[str, str]) -> None:
    rewrite(saved, metadata=metadata)
    with pytest.raises(InputError, match=str(saved)):
        read(saved)


@pytest.mark.parametrize(
    "tensors",
    [
        {"value": torch.zeros(5, K, 2)},
        {"value": torch.zeros(6, K, 2, dtype=torch.float16)},
        {"value": torch.full((6, K, 2), torch.nan)},
        {"jacobian": torch.full((6, K, 2, 2), torch.inf)},
        {"jacobian": torch.zeros(6, K, 4)},
        {"pts": torch.tensor([0, 1, 2, 3, 4, 4])},
        {"pts": torch.tensor([-1, 1, 2, 3, 4, 5])},
        {"pts": torch.tensor([0, 1, 2, 3, 4, 2**62])},
        {"pts": torch.tensor([-(2**63), 2**63 - 1, 0, 1, 2, 3])},
        {"pts": torch.tensor(3)},
        {"extra": torch.zeros(1)},
        {"scene": torch.zeros(5, dtype=torch.int64)},
        {"scene": torch.zeros(6)},
        {"value": torch.zeros(0, K, 2), "jacobian": torch.zeros(0, K, 2, 2), "pts": torch.zeros(0, dtype=torch.int64)},
    ],
)
def test_tensors_that_are_no_motion_are_refused(saved: Path, tensors: dict[str, torch.Tensor]) -> None:
    rewrite(saved, tensors)
    with pytest.raises(InputError, match=str(saved)):
        read(saved)


def test_the_first_frames_of_a_motion(motion: Motion) -> None:
    short = motion.first(2)
    assert (short.frames, short.pts.tolist()) == (2, [0, 2])
    assert motion.first(None).frames == 6
    assert replace(motion, scenes=torch.tensor([0, 0, 0, 1, 1, 2])).first(4).scenes_of(slice(1, 4)) == [0, 0, 1]


def test_a_motion_of_several_scenes_is_of_the_second_version(motion: Motion, tmp_path: Path) -> None:
    path, scenes = tmp_path / "scenes.safetensors", torch.tensor([0, 0, 0, 1, 1, 2])
    save_motion(path, replace(motion, scenes=scenes), fingerprint="abc")
    loaded = read(path)
    assert loaded.scenes is not None and torch.equal(loaded.scenes, scenes)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["version"] == "2"


def test_a_motion_of_one_scene_is_what_the_first_version_was(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        assert file.metadata()["version"] == "1"
    assert read(saved).scenes is None and read(saved).scenes_of(slice(4, 9)) == [0, 0]
