"""VoxCeleb's annotations, in both published forms, say whom a clip shows and when."""

from pathlib import Path

import pytest

from cbtalk.errors import InputError
from cbtalk.prepare import PrepareOptions, prepare
from cbtalk.prepare.annotated import plan_annotation
from cbtalk.prepare.annotations import Annotation, read_annotations
from cbtalk.prepare.stretch import Reason
from tests.prepare.people import Person, shot, write_raw

TABLE = (
    "video_id,start,end,bbox,fps,width,height,partition,person_id\nabc,50,150,400-100-700-500,25,1280,720,test,id1\n"
)
SIZE = (1280, 720)


def utterance(box: str, frames: range) -> str:
    """A text file as VoxCeleb's, tabs and blanks included."""
    header = "Identity  : \tid7\nReference : \tabc\nOffset    : \t2\nFV Conf   : \t20.230\t(1)\nASD Conf  : \t2.765\n\n"
    rows = "".join(f"{frame:06} \t{box}\n" for frame in frames)
    return f"{header}FRAME \tX \tY \tW \tH \n{rows}"


def only(path: Path) -> Annotation:
    (annotation,) = read_annotations(path, {"abc"})["abc"]
    return annotation


def test_a_row_of_the_table_is_a_square_around_its_area(tmp_path: Path) -> None:
    path = tmp_path / "vox.csv"
    path.write_text(TABLE)
    annotation = only(path)
    assert (annotation.identity, annotation.partition) == ("id1", "test")
    (stretch,) = plan_annotation(annotation, SIZE, PrepareOptions())
    assert (stretch.start, stretch.end, stretch.reason) == (2.0, 6.0, None)
    assert stretch.square is not None and tuple(stretch.square) == (550, 300, 400, 0)
    (half,) = plan_annotation(annotation, (640, 360), PrepareOptions())
    assert half.square is not None and tuple(half.square) == (275, 150, 200, 0)


def test_the_older_table_names_the_person_with_the_video(tmp_path: Path) -> None:
    path = tmp_path / "vox.csv"
    path.write_text("video_id,start,end,bbox,fps,width,height\nabc#id9,0,75,0-0-9-9,25,16,16\n")
    assert (only(path).video, only(path).identity, only(path).partition) == ("abc", "id9", None)


def test_an_area_out_of_the_image_is_moved_into_it(tmp_path: Path) -> None:
    path = tmp_path / "vox.csv"
    path.write_text(TABLE.replace("400-100-700-500", "331-0-981-819"))
    (stretch,) = plan_annotation(only(path), SIZE, PrepareOptions())
    assert stretch.reason is None and stretch.square is not None and tuple(stretch.square) == (656, 360, 720, 0)


@pytest.mark.parametrize(
    ("box", "side"),
    [("0.25 \t0.20 \t0.225 \t0.40", 288.0), ("180 \t72 \t144 \t144", 288 / 0.692)],
    ids=["VoxCeleb2: the area in shares", "VoxCeleb1: the face in px of 360 lines"],
)
def test_the_rows_of_a_text_file_are_a_track(tmp_path: Path, box: str, side: float) -> None:
    folder = tmp_path / "txt" / "id7" / "abc"
    folder.mkdir(parents=True)
    (folder / "00001.txt").write_text(utterance(box, range(25, 125)))
    annotation = only(tmp_path / "txt")
    assert annotation.identity == "id7"
    (stretch,) = plan_annotation(annotation, SIZE, PrepareOptions())
    assert (stretch.start, stretch.end, stretch.reason) == (1.0, 5.0, None)
    assert stretch.square is not None and stretch.square.side == pytest.approx(side, rel=1e-4)
    middle = (0.25 + 0.225 / 2) * 1280 if side == 288 else 504
    assert stretch.square.x == pytest.approx(middle, abs=0.01 * side)
    assert stretch.square.y == pytest.approx(288, abs=0.01 * side)


def test_files_of_absent_videos_are_not_opened(tmp_path: Path) -> None:
    for video, text in (("abc", utterance("0.2 0.2 0.3 0.5", range(75))), ("absent", "no annotation")):
        (tmp_path / "id7" / video).mkdir(parents=True)
        (tmp_path / "id7" / video / "00001.txt").write_text(text)
    assert set(read_annotations(tmp_path, {"abc"})) == {"abc"}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "video_id,start\nabc,1\n", "no column end"),
        ("a.csv", TABLE.replace("400-100", "400+100"), "a.csv, line 2"),
        ("a.csv", TABLE.replace("1280,720", "0,720"), "a.csv, line 2"),
        ("a.csv", TABLE.replace("50,150", "150,50"), "a.csv, line 2"),
        ("a.csv", TABLE.replace(",25,", ",nan,"), "a.csv, line 2"),
        ("a.txt", utterance("1 2 3", range(2)), "a.txt, line 8"),
        ("a.txt", utterance("1 2 3 4", range(0)), "no row FRAME"),
        ("a.txt", utterance("0.1 0.1 0.2 0.2", range(9)).replace("Reference", "Reverence"), "no line Reference"),
        ("a.txt", "\ud800", "cannot be read as text"),
    ],
)
def test_what_is_no_annotation_is_told_with_its_place(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=told):
        read_annotations(tmp_path / name, {"abc"})


def test_no_annotations_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(InputError, match="no annotations there"):
            read_annotations(path, {"abc"})


def test_only_annotated_videos_give_clips(tmp_path: Path) -> None:
    raw, out, table = tmp_path / "raw", tmp_path / "out", tmp_path / "vox.csv"
    for name in ("abc", "other"):
        write_raw(raw / f"{name}.mp4", shot([Person(300, 170, 200)], 3))
    table.write_text(TABLE.replace("50,150,400-100-700-500,25,1280,720", "0,75,200-70-400-270,25,640,360"))
    options = PrepareOptions(min_sharpness=0, min_motion=0.5)
    rows = {row.video: row.stretch for row in prepare(raw, out, options, annotations=table, progress=False).rows}
    assert (
        rows["abc.mp4"].reason is None
        and rows["abc.mp4"].name == "test/id1__abc__000.mp4"
        and rows["abc.mp4"].frames == 30
    )
    assert (out / "test" / "id1__abc__000.mp4").is_file()
    assert rows["other.mp4"].reason is Reason.NO_ANNOTATION and rows["other.mp4"].seconds == pytest.approx(3)
