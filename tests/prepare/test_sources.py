"""The files that count as raw videos, and the names of their clips."""

import os
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtalk.errors import InputError
from cbtalk.media.clips import identity_of
from cbtalk.prepare.sources import Source, find_sources

Identity = Literal["folder", "file"]


def sources(root: Path, identity: Identity, *names: str) -> dict[str, Source]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return {source.name: source for source in find_sources(root, root / "out", identity)}


def test_videos_of_every_kind_in_all_folders_but_the_output(tmp_path: Path) -> None:
    found = sources(
        tmp_path, "file", "a.mp4", "b/c.WEBM", "b/notes.txt", ".hidden.mp4", ".cache/d.mp4", "out/e.mp4", "f.png"
    )
    assert set(found) == {"a.mp4", "b/c.WEBM"}


@pytest.mark.parametrize(
    ("identity", "name", "stem", "person"),
    [
        ("file", "talk.mp4", "talk", "talk"),
        ("file", "obama__talk.mp4", "obama__talk", "obama"),
        ("file", "id1#x#01.mp4", "id1#x#01", "id1"),
        ("file", "2024/talk.mp4", "2024-talk", "2024-talk"),
        ("folder", "obama/talk.mp4", "obama__talk", "obama"),
        ("folder", "obama/2024/talk.mp4", "obama__2024-talk", "obama"),
        ("folder", "obama/obama__talk.mp4", "obama__talk", "obama"),
        ("folder", "talk.mp4", "talk", "talk"),
        ("folder", "a__b/talk.mp4", "a_b__talk", "a_b"),
        ("folder", "a_/talk.mp4", "a__talk", "a"),
    ],
)
def test_the_identity_is_found_again_in_the_name(
    tmp_path: Path, identity: Identity, name: str, stem: str, person: str
) -> None:
    source = sources(tmp_path, identity, name)[name]
    assert source.clip_stem() == stem
    assert identity_of(f"{source.clip_stem()}__007.mp4") == person


@given(st.text(min_size=1, max_size=300))
def test_an_identity_of_any_text_is_found_again(identity: str) -> None:
    stem = Source("talk.mp4", Path("talk.mp4"), "talk").clip_stem(identity)
    person = identity_of(f"{stem}__000.mp4")
    assert person and identity_of(f"{person}__x") == person
    assert len(os.fsencode(stem)) < 220 and not set(stem) & set("/\\\0\n")


def test_names_that_would_be_the_same_are_told_apart(tmp_path: Path) -> None:
    found = sources(tmp_path, "file", "talk.mp4", "talk.mkv", "TALK.avi", "other.mp4", "x/y.mp4", "x-y.mp4")
    stems = [source.stem.casefold() for source in found.values()]
    assert len(set(stems)) == len(stems)
    assert found["other.mp4"].stem == "other"


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    assert sources(tmp_path, "file", name)[name].stem.encode() == b"caf-xe9"


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video in it"):
        find_sources(tmp_path, tmp_path / "out", "file")
    with pytest.raises(InputError, match="is not a folder"):
        find_sources(tmp_path / "absent", tmp_path / "out", "file")
