import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cbtalk.app.faults import line_of
from cbtalk.app.motions import MOTIONS, motions_for
from cbtalk.app.studio import Studio
from cbtalk.app.work_folder import without_folder, work_folder
from cbtalk.errors import CbtalkError, ConfigError, InputError
from cbtalk.media.video_reader import open_video
from cbtalk.model.checkpoint import load
from tests.app.conftest import CLIP_FRAMES, LIMITS

CENTRE = {"crop": "centre", "driving_crop": "centre"}


@pytest.fixture
def studio(weights: Path, tmp_path: Path) -> Studio:
    return Studio(str(weights), "cpu", torch.float32, LIMITS, tmp_path / "work")


@pytest.fixture(autouse=True)
def _work(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()


def test_a_portrait_is_animated_by_a_clip(studio: Studio, portrait: Path, make_clip: Callable[..., Path]) -> None:
    made = studio.animate(str(portrait), str(make_clip()), {**CENTRE, "strength": 0.5})
    assert made.video.name == "portrait__driving.mp4"
    assert made.lines[-1].startswith(f"portrait__driving.mp4: {CLIP_FRAMES} frames")
    with open_video(made.video) as reader:
        assert len(list(reader)) == CLIP_FRAMES


def test_two_results_of_one_name_do_not_meet(studio: Studio, portrait: Path, make_clip: Callable[..., Path]) -> None:
    clip = str(make_clip())
    assert len({studio.animate(str(portrait), clip, CENTRE).video for _ in range(2)}) == 2


def test_closed_a_studio_ends_its_render_and_takes_no_more(
    studio: Studio, portrait: Path, make_clip: Callable[..., Path]
) -> None:
    clip, closing = str(make_clip()), threading.Thread(target=studio.close)

    def close(frames: int, expected: int | None) -> None:
        closing.start()
        while not studio.closing:
            closing.join(0.001)

    with pytest.raises(InputError, match="being closed"):
        studio.animate(str(portrait), clip, {**CENTRE, "batch_size": 1}, close)
    closing.join()
    with pytest.raises(InputError, match="being closed"):
        studio.look(str(portrait), {"crop": "centre"})
    assert not list(studio.folder.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"strength": 3.0}, "strength 3.0: must be 0 to 2"),
        ({"smooth": 2.0}, "smooth 2.0: must be 0 to 1 seconds"),
        ({"output_size": "15"}, "output size 15"),
        ({"crop": "here"}, "crop 'here': must be centre, or x,y,size"),
        ({"motion": "absolute", "strength": 0.5}, "strength belong to relative motion"),
    ],
)
def test_options_are_checked_as_those_of_a_render(
    studio: Studio, portrait: Path, make_clip: Callable[..., Path], words: dict[str, object], line: str
) -> None:
    with pytest.raises(CbtalkError) as failure:
        studio.animate(str(portrait), str(make_clip()), words)
    assert line in str(failure.value)


def test_what_is_not_chosen_yet_is_asked_for(studio: Studio, portrait: Path) -> None:
    with pytest.raises(InputError, match="choose a portrait first"):
        studio.animate(None, "talk", {})
    with pytest.raises(InputError, match="choose a driving clip"):
        studio.animate(str(portrait), None, {})


def test_a_preview_shows_the_face_that_is_chosen(studio: Studio, face: Path) -> None:
    look = studio.look(str(face), {})
    assert look.faces == 1 and look.image.size == (512, 512)
    with pytest.raises(InputError, match="face 2: only 1 face is found in the image"):
        studio.look(str(face), {"face": "2"})


def test_a_preview_of_a_crop_needs_no_face(studio: Studio, portrait: Path) -> None:
    look = studio.look(str(portrait), {"crop": "10,20,30"})
    assert (look.faces, look.square.side) == (0, 30)
    with pytest.raises(InputError, match=r"no face is found; .*--crop"):
        studio.look(str(portrait), {})
    with pytest.raises(InputError, match="does not fit the image"):
        studio.look(str(portrait), {"crop": "100,20,30"})


def test_bundled_motions_are_offered_to_the_model_that_they_fit(studio: Studio) -> None:
    assert studio.motions == {}  # the tiny model of the tests
    assert set(motions_for(load("mini").motion_fingerprint())) == set(MOTIONS) == {"talk", "nod", "shake"}


def test_messages_name_uploads_as_the_user_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    with work_folder() as folder:
        failure: Exception = ConfigError(f"{folder}/uploads/1f2e/a b.png: no face\nis found")
        assert line_of(failure, folder) == "a b.png: no face is found"
        assert without_folder(f"{folder}/clip.mp4: bad", folder) == "clip.mp4: bad"
        assert capsys.readouterr().err == ""
        try:
            raise KeyError("x")
        except KeyError as unexpected:
            assert line_of(unexpected, folder) == "internal: KeyError: 'x' (the terminal shows where)"
        assert "Traceback" in capsys.readouterr().err
    assert not folder.exists()
