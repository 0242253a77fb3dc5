"""Manifests say what is to be rendered, and all that is wrong with them in one answer."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cbtalk.batch import Fault, faults_of, pairs, read_manifest
from cbtalk.errors import InputError
from cbtalk.media.crop import CropBox
from tests.media.synthetic import numbered, write_clip


def write_picture(path: Path) -> None:
    Image.fromarray(np.full((40, 40, 3), 80, np.uint8)).save(path)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png")
    write_clip(tmp_path / "clip.mp4", [numbered(n) for n in range(3)])
    return tmp_path


def manifest(folder: Path, text: str, name: str = "jobs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def test_csv(files: Path) -> None:
    text = 'source,driving,output,crop,motion,max-frames\na.png,clip.mp4,x/1.mp4,"1,2,30",absolute,\n\n'
    text += "b.png,clip.mp4,,,,7\n"
    jobs, faults = read_manifest(manifest(files, text), files / "out", {})
    assert faults == []
    first, second = jobs
    assert (first.source, first.driving, first.output) == (files / "a.png", files / "clip.mp4", files / "out/x/1.mp4")
    assert first.options.crop == CropBox(1, 2, 30) and first.options.motion == "absolute" and first.line == 2
    assert second.output == files / "out" / "b__clip.mp4"
    assert second.options.driving.max_frames == 7 and second.options.crop is None and second.line == 4
    assert faults_of(jobs) == []


def test_json_lines(files: Path) -> None:
    lines = [{"source": "a.png", "driving": "clip.mp4", "best_frame": True, "max_frames": 3, "crop": None}]
    jobs, faults = read_manifest(manifest(files, json.dumps(lines[0]) + "\n\n", "jobs.jsonl"), files, {})
    assert faults == [] and jobs[0].options.best_frame and jobs[0].options.driving.max_frames == 3


def test_sound_is_an_input(files: Path) -> None:
    text = "source,driving,output,audio\na.png,clip.mp4,1.mp4,none\na.png,clip.mp4,2.mp4,sound.wav\n"
    jobs, faults = read_manifest(manifest(files, text), files / "out", {})
    assert faults == [] and [job.inputs[2:] for job in jobs] == [[], [files / "sound.wav"]]
    (fault,) = faults_of(jobs)
    assert fault.line == 3 and "sound.wav" in fault.text


def test_options_for_all_jobs_yield_to_their_own(files: Path) -> None:
    text = "source,driving,output,motion\na.png,clip.mp4,1.mp4,\na.png,clip.mp4,2.mp4,relative\n"
    jobs, _ = read_manifest(manifest(files, text), files, {"motion": "absolute"})
    assert [job.options.motion for job in jobs] == ["absolute", "relative"]


def test_every_fault_of_a_csv_in_one_answer(files: Path) -> None:
    (files / "empty.png").touch()
    (files / "text.png").write_text("no picture")
    (files / "text.mp4").write_text("no video")
    rows = [
        "source,driving,output,crop,motion,max_frames,best_frame",
        "a.png,clip.mp4,same.mp4,,,,",
        "a.png,clip.mp4,same.mp4,,,,",
        "nobody.png,clip.mp4,3.mp4,,,,",
        "a.png,nothing.mp4,4.mp4,,,,",
        "empty.png,clip.mp4,5.mp4,,,,",
        "text.png,text.mp4,6.mp4,,,,",
        "a.png,clip.mp4,7.gif,,,,",
        "a.png,clip.mp4,8.mp4,here,,,",
        "a.png,clip.mp4,9.mp4,,sideways,,",
        "a.png,clip.mp4,10.mp4,,,none,",
        "a.png,clip.mp4,11.mp4,,,0,",
        "a.png,clip.mp4,12.mp4,,absolute,,true",
        "a.png,clip.mp4,../13.mp4,,,,",
        ",clip.mp4,14.mp4,,,,",
        "a.png,clip.mp4,15.mp4,,,,,,,",
        "a.png,clip.mp4,16.mp4,,,,perhaps",
    ]
    jobs, faults = read_manifest(manifest(files, "\n".join(rows)), files / "out", {})
    found: dict[int | None, list[str]] = {}
    for fault in faults + faults_of(jobs):
        found.setdefault(fault.line, []).append(fault.text)
    expected = {
        3: "same output as line 2",
        4: "nobody.png: no such file",
        5: "nothing.mp4: no such file",
        6: "empty.png: is empty",
        7: "text.png: is not a picture",
        8: "must end in .mp4",
        9: "crop",
        10: "relative",
        11: "whole number",
        12: "must be 1 or more",
        13: "belong to relative motion",
        14: "must lie in the folder",
        15: "no source",
        16: "10 cells in 7 columns",
        17: "true or false",
    }
    assert found.keys() == expected.keys()
    for line, words in expected.items():
        assert any(words in text for text in found[line]), (line, found[line])
    assert any("text.mp4" in text for text in found[7])


def test_every_fault_of_json_lines(files: Path) -> None:
    lines = ['{"source": "a.png", "driving": "clip.mp4"}', "{", "[1]", '{"source": ["a"], "driving": "clip.mp4"}']
    lines.append('{"source": "a.png", "driving": "clip.mp4", "output": "b.mp4", "krop": "centre"}')
    jobs, faults = read_manifest(manifest(files, "\n".join(lines), "jobs.jsonl"), files, {})
    assert len(jobs) == 1 and [fault.line for fault in faults] == [2, 3, 4, 5]
    assert "krop: no such option" in faults[-1].text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("jobs.txt", "source,driving\n", "ends in .csv or .jsonl"),
        ("jobs.csv", "source,driving\n", "no job"),
        ("jobs.csv", "picture,clip\na,b\n", "must name the columns"),
        ("jobs.csv", "source,driving,source\na,b,c\n", "twice"),
        ("jobs.csv", 'source,driving\na,"b', "not a CSV file"),
        ("jobs.jsonl", "\n\n", "no job"),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_manifest(manifest(tmp_path, text, name), tmp_path, {})


def test_an_output_that_is_an_input_of_another_job(files: Path) -> None:
    text = "source,driving,output\na.png,clip.mp4,clip.mp4\n"
    jobs, _ = read_manifest(manifest(files, text), files, {})
    assert [fault.line for fault in faults_of(jobs)] == [2]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1).filter(lambda name: name.strip()))
def test_names_of_any_characters_survive_json(name: str) -> None:
    text = json.dumps({"source": name, "driving": "d.mp4", "output": "o.mp4"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: text)
        patch.setattr("cbtalk.batch.manifest.check_readable", lambda *_: None)
        jobs, faults = read_manifest(Path("jobs.jsonl"), Path("out"), {})
    assert faults == [] and jobs[0].source == Path(name.strip())


def test_pairs(files: Path) -> None:
    sources, drivings = files / "sources", files / "drivings"
    for folder, names in ((sources, "ab"), (drivings, "xy")):
        folder.mkdir()
        for name in names:
            (folder / f"{name}{'.png' if folder is sources else '.mp4'}").touch()
    every = pairs(sources, drivings, files / "out", "all", {"compare": "yes"})
    assert [job.output.name for job in every] == ["a__x.mp4", "a__y.mp4", "b__x.mp4", "b__y.mp4"]
    assert all(job.options.compare for job in every)
    zipped = pairs(sources, drivings, files / "out", "zip", {})
    assert [job.output.name for job in zipped] == ["a__x.mp4", "b__y.mp4"]
    (drivings / "z.mp4").touch()
    with pytest.raises(InputError, match="2 pictures for the 3 clips"):
        pairs(sources, drivings, files / "out", "zip", {})
    with pytest.raises(InputError, match="no pictures in it"):
        pairs(drivings, sources, files / "out", "all", {})


def test_a_fault_without_a_line_has_none() -> None:
    assert Fault(None, "text").line is None
