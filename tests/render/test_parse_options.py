"""Options from words are those of the command line."""

from dataclasses import fields

import pytest

from cbtalk.errors import CbtalkError
from cbtalk.media.crop import CropBox
from cbtalk.options.render import Movement, Part, Result, SourceFace
from cbtalk.render import DrivingOptions, RenderOptions
from cbtalk.render.parse_options import option_names, parse_options

GROUPS = (SourceFace, Movement, Part, Result)


def test_names_are_those_of_the_command_line() -> None:
    names = [field.name for group in GROUPS for field in fields(group)]
    assert sorted(option_names()) == sorted([*names, "follow", "driving_crop", "driving_face"])


def test_nothing_gives_the_defaults() -> None:
    assert parse_options({}) == RenderOptions()


def test_values_of_every_kind() -> None:
    words = {
        "motion": "absolute",
        "compare": "TRUE",
        "crop": "3,4,50",
        "driving-crop": "centre",
        "face": "2",
        "driving_face": "longest",
        "batch_size": " 7 ",
    }
    driving = DrivingOptions(crop="centre", batch_size=7)
    assert parse_options(words) == RenderOptions(
        motion="absolute", compare=True, crop=CropBox(3, 4, 50), face=2, driving=driving
    )
    assert parse_options({"driving_face": "10,20"}).driving.face == (10, 20)
    assert parse_options({"batch_size": 7, "compare": True, "audio": None}) == RenderOptions(
        compare=True, driving=DrivingOptions(batch_size=7)
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("krop", "1", "no such option"),
        ("motion", "", "absolute"),
        ("batch_size", "many", "whole number"),
        ("batch_size", "0", "1 or more"),
        ("compare", "maybe", "true or false"),
        ("crop", "wide", "crop"),
        ("driving_face", "first", "driving_face"),
    ],
)
def test_a_wrong_word_is_one_clear_line(name: str, value: str, words: str) -> None:
    with pytest.raises(CbtalkError, match=words) as failure:
        parse_options({name: value})
    assert name in str(failure.value) or value in str(failure.value)
