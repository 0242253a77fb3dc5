"""Manifests say what is to be rendered, and all that is wrong with them in one answer."""

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cbtalk.batch import BatchOptions, Fault, faults_of, pairs, read_manifest
from cbtalk.batch.command import show_plan
from cbtalk.batch.estimate import frames_of, start_seconds
from cbtalk.errors import InputError, OutputError
from cbtalk.media.crop import CropBox
from cbtalk.model.checkpoint import load
from cbtalk.model.keypoints import Keypoints
from cbtalk.render.motion_file import Motion, save_motion
from tests.batch import stand_in
from tests.helpers.videos import numbered, write_clip


def write_image(path: Path) -> None:
    Image.fromarray(np.full((40, 40, 3), 80, np.uint8)).save(path)


def still_motion() -> Motion:
    return Motion(
        Keypoints(torch.zeros(3, 20, 2), torch.zeros(3, 20, 2, 2)), torch.arange(3), Fraction(1, 25), Fraction(25)
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
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


COLUMNS = "source,driving,output,crop,motion,max_frames,best_frame,driving_crop,start,audio,compare,strength,krop"

# From the second line on, and a part of what is said of each; None: nothing.
CSV_LINES: list[tuple[str, str | None]] = [
    ("a.png,clip.mp4,same.mp4,,,,", None),
    ("a.png,clip.mp4,same.mp4,,,,", "same output as line 2"),
    ("nobody.png,clip.mp4,3.mp4,,,,", "nobody.png: no such file"),
    ("a.png,nothing.mp4,4.mp4,,,,", "nothing.mp4: no such file"),
    ("empty.png,clip.mp4,5.mp4,,,,", "empty.png: is empty"),
    ("text.png,text.mp4,6.mp4,,,,", "text.png: is not an image"),
    ("a.png,clip.mp4,7.gif,,,,", "must end in .mp4"),
    ("a.png,clip.mp4,8.mp4,here,,,", "crop"),
    ("a.png,clip.mp4,9.mp4,,sideways,,", "relative"),
    ("a.png,clip.mp4,10.mp4,,,none,", "whole number"),
    ("a.png,clip.mp4,11.mp4,,,0,", "must be 1 or more"),
    ("a.png,clip.mp4,12.mp4,,absolute,,true", "belong to relative motion"),
    ("a.png,clip.mp4,../13.mp4,,,,", "must lie in the folder"),
    (",clip.mp4,14.mp4,,,,", "no source"),
    ("a.png,clip.mp4,15.mp4,,,,,,,,,,,,,", "16 cells in 13 columns"),
    ("a.png,clip.mp4,16.mp4,,,,perhaps", "true or false"),
    ("cut.png,clip.mp4,17.mp4", "cut.png: is damaged"),
    ('a.png,clip.mp4,18.mp4,"40,0,20"', "crop 40,0,20: does not fit the image of 40 x 40"),
    ('a.png,clip.mp4,19.mp4,,,,,"0,0,2000"', "crop 0,0,2000: does not fit"),
    ("a.png,clip.mp4,20.mp4,,,,,,60", "cannot start at 60.00 s"),
    ("a.png,clip.mp4,21.mp4,,,,,,-1", "start -1.0: must be 0"),
    ("a.png,clip.mp4,22.mp4,,,,,,,nothing.wav", "nothing.wav: no such file"),
    ("a.png,text.safetensors,23.mp4", "text.safetensors: not a readable motion file"),
    ("a.png,other.safetensors,24.mp4", "other.safetensors: this motion is of another model"),
    ("a.png,own.safetensors,25.mp4,,,,,,60", "own.safetensors: cannot start at 60.00 s"),
    ("a.png,own.safetensors,26.mp4,,,,,,,,true", "a motion file has no images"),
    ("a.png,clip.mp4,27.mp4,,,,,,,,,9", "strength 9.0: must be 0 to 2"),
    ("a.png,clip.mp4,28.mp4,,,,,,,,,,centre", None),
    ("a.png,clip.mp4,folder.mp4", "the output is a folder"),
    ("a.png,clip.mp4,file/30.mp4", "its folder file is a file"),
    ("a.png,clip.mp4,same.mp4/31.mp4", "its folder same.mp4 is the output of line 2"),
    ("private.png,clip.mp4,32.mp4", "private.png: cannot be opened"),
    ("a.png,.,33.mp4", "is a folder"),
    ("a.png,own.safetensors,34.mp4", None),
    ("a.png,,35.mp4", "no driving"),
]


@pytest.fixture
def faulty(files: Path) -> Path:
    """The folder of `files` with those of CSV_LINES."""
    (files / "empty.png").touch()
    (files / "text.png").write_text("no image")
    (files / "text.mp4").write_text("no video")
    (files / "cut.png").write_bytes((files / "a.png").read_bytes()[:60])
    (files / "text.safetensors").write_text("no motion")
    save_motion(files / "other.safetensors", still_motion(), fingerprint="of another model")
    save_motion(files / "own.safetensors", still_motion(), fingerprint=load("mini").motion_fingerprint())
    (files / "out" / "folder.mp4").mkdir(parents=True)
    (files / "out" / "file").touch()
    (files / "private.png").symlink_to(files / "private.png")  # no permission stops root
    return files


def test_every_fault_of_a_csv_in_one_answer(faulty: Path) -> None:
    text = "\n".join([COLUMNS, *(line for line, _ in CSV_LINES)])
    jobs, faults = read_manifest(manifest(faulty, text), faulty / "out", {})
    found: dict[int | None, list[str]] = {}
    for fault in faults + faults_of(jobs):
        found.setdefault(fault.line, []).append(fault.text)
    assert found.pop(1) == ["column krop: no such option; did you mean crop?"]
    expected = {number: words for number, (_, words) in enumerate(CSV_LINES, 2) if words is not None}
    assert found.keys() == expected.keys()
    for number, words in expected.items():
        assert any(words in text for text in found[number]), (number, found[number])
    assert any("text.mp4" in text for text in found[7])


@pytest.mark.parametrize("name", ["jobs.csv", "jobs.jsonl"])
def test_a_name_that_is_no_option_is_told_once_and_hides_nothing(files: Path, name: str) -> None:
    rows = [{"source": f"{who}.png", "driving": "clip.mp4", "output": f"{who}.mp4", "krop": "1"} for who in "axby"]
    lines = [json.dumps(row) for row in rows]
    if name.endswith(".csv"):
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    jobs, faults = read_manifest(manifest(files, "\n".join(lines), name), files / "out", {})
    (unknown,) = faults
    assert unknown.line == 1 and "krop: no such option; did you mean crop?" in unknown.text
    assert [fault.text.partition(":")[0] for fault in faults_of(jobs)] == [str(files / f"{who}.png") for who in "xy"]


def test_the_manifests_of_the_guide_are_as_it_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "batch.md").read_text(encoding="utf-8")
    for kind, suffix in (("csv", "csv"), ("json", "jsonl")):
        (text,) = re.findall(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        jobs, faults = read_manifest(manifest(tmp_path, text, f"jobs.{suffix}"), tmp_path / "out", {})
        assert faults == [] and jobs[0].output == tmp_path / "out" / "anna.mp4"
        assert jobs[0].options.driving.max_frames == 100 and jobs[0].driving == tmp_path / "clips" / "talk.mp4"
        assert suffix == "jsonl" or jobs[1].output == tmp_path / "out" / "bert__talk.mp4"


def test_a_plan_counts_the_start_of_the_workers_and_says_what_is_not_checked(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cbtalk.batch.process_pool.serve", stand_in.serve)
    monkeypatch.setattr("cbtalk.batch.command.frame_seconds", lambda *_: 0.5)
    monkeypatch.setattr("cbtalk.batch.command.start_seconds", lambda *words: 100 * (start_seconds(*words) > 0))
    jobs, _ = read_manifest(manifest(files, "source,driving\na.png,clip.mp4\nb.png,clip.mp4\n"), files / "out", {})
    assert show_plan(jobs, files / "out", BatchOptions(workers=2)) == 0
    out = capsys.readouterr().out
    assert "2 jobs, 6 frames; 2 workers, 100.0 seconds to start" in out and "about 1 min 42 s" in out
    assert "not checked: faces" in out and not (files / "out").exists()


def test_an_encoder_that_cannot_be_opened_is_a_fault_where_this_machine_does_the_jobs(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(encoder: str) -> None:
        if encoder == "h264_nvenc":
            raise OutputError("encoder h264_nvenc: cannot be opened here")

    monkeypatch.setattr("cbtalk.batch.check.check_encoder", refused)
    text = "source,driving,output,encoder\na.png,clip.mp4,1.mp4,libx264\na.png,clip.mp4,2.mp4,h264_nvenc\n"
    jobs, faults = read_manifest(manifest(files, text), files / "out", {})
    assert faults == [] and faults_of(jobs, local=False) == []
    assert faults_of(jobs) == [Fault(3, "encoder h264_nvenc: cannot be opened here")]


def test_every_fault_of_json_lines(files: Path) -> None:
    lines = ['{"source": "a.png", "driving": "clip.mp4"}', "{", "[1]", '{"source": ["a"], "driving": "clip.mp4"}']
    lines.append('{"source": "a.png", "driving": "clip.mp4", "output": "b.mp4", "krop": "centre"}')
    lines.append('{"source": "a.png\\u0000", "driving": "clip.mp4", "output": "c.mp4"}')
    lines.append('{"source": "a.png", "driving": "clip.mp4", "output": "c\\u0000.mp4"}')
    lines.append('{"source": "a.png", "driving": "clip.mp4", "output": "\\ud800.mp4"}')
    lines.append(json.dumps({"source": "a.png", "driving": "clip.mp4", "output": "n" * 300 + ".mp4"}))
    jobs, faults = read_manifest(manifest(files, "\n".join(lines), "jobs.jsonl"), files, {})
    assert len(jobs) == 6 and [fault.line for fault in faults] == [2, 3, 4, 5]
    assert "krop: no such option" in faults[-1].text
    found = faults_of(jobs)
    assert [fault.line for fault in found] == [6, 7, 8, 9]
    expected = ("is not a file name", "is no name of a file", "is no name of a file", "longer than 255 bytes")
    assert all(words in fault.text for fault, words in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("jobs.txt", "source,driving\n", "ends in .csv or .jsonl"),
        ("jobs.csv", "source,driving\n", "no job"),
        ("jobs.csv", "image,clip\na,b\n", "must name the columns"),
        ("jobs.csv", "source;driving;output\na;b;c\n", "separated by semicolons; they must be by commas"),
        ("jobs.csv", "source\tdriving\na\tb\n", "separated by tabs"),
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
    with pytest.raises(InputError, match="2 images for the 3 clips"):
        pairs(sources, drivings, files / "out", "zip", {})
    with pytest.raises(InputError, match="no images in it"):
        pairs(drivings, sources, files / "out", "all", {})


def test_frames_of_a_batch_are_those_of_the_parts_that_are_taken(files: Path) -> None:
    save_motion(files / "own.safetensors", still_motion(), fingerprint="any")
    text = "source,driving,output,max_frames,start\na.png,clip.mp4,1.mp4,,\na.png,clip.mp4,2.mp4,2,\n"
    text += "a.png,clip.mp4,3.mp4,,0.08\na.png,own.safetensors,4.mp4,,0.04\n"
    jobs, faults = read_manifest(manifest(files, text), files / "out", {})
    assert faults == [] and [frames_of([job]) for job in jobs] == [3, 2, 1, 2]


def test_a_fault_without_a_line_has_none() -> None:
    assert Fault(None, "text").line is None
