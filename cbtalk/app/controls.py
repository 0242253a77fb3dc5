"""The controls of a render: named as the options of `cbtalk render`, with their ranges and defaults."""

from collections.abc import Mapping, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

import gradio as gr

from cbtalk.app.faults import line_of
from cbtalk.model.smooth import SMOOTHEST
from cbtalk.options.render import STRONGEST, Loop
from cbtalk.render.options import RenderOptions

P = ParamSpec("P")
R = TypeVar("R")

DEFAULTS = RenderOptions()
MOTIONS = get_args(get_type_hints(RenderOptions)["motion"])

Controls = dict[str, gr.components.Component]  # by the name of the option


def movement() -> Controls:
    """Controls of what most people change."""
    with gr.Row():
        sliders = {
            "strength": gr.Slider(0, STRONGEST, DEFAULTS.strength, step=0.05, label="strength", info="of the motion"),
            "smooth": gr.Slider(
                0, SMOOTHEST, DEFAULTS.driving.smooth, step=0.005, label="smooth", info="seconds; try 0.025"
            ),
        }
    return {**sliders, "paste": gr.Checkbox(DEFAULTS.paste, label="paste: give the whole photo back, its face moving")}


def details() -> Controls:
    """Controls of all the rest."""
    with gr.Row():
        first = {
            "motion": gr.Radio(MOTIONS, value=DEFAULTS.motion, label="motion", info="as it moves, or where it is"),
            "loop": gr.Dropdown(
                [("none", ""), *get_args(Loop)], value="", label="loop", info="a video that repeats without a jump"
            ),
        }
    with gr.Row():
        second = {
            "best_frame": gr.Checkbox(DEFAULTS.best_frame, label="best frame: start from the pose most alike"),
            "adapt_scale": gr.Checkbox(DEFAULTS.adapt_scale, label="adapt scale: to the size of the face"),
        }
    with gr.Row():
        third = {
            "start": gr.Textbox(label="start", info="seconds to leave out"),
            "duration": gr.Textbox(label="duration", info="seconds to take"),
            "output_size": gr.Textbox(label="output size", info="pixels, even"),
        }
    with gr.Row():
        fourth = {
            "crop": gr.Textbox(label="crop", info="square of the portrait: x,y,size"),
            "driving_face": gr.Textbox(label="driving face", info="number from the left, or x,y"),
            "driving_crop": gr.Textbox(label="driving crop", info="square of the clip: x,y,size"),
        }
    return {**first, **second, **third, **fourth}


def words(controls: Mapping[str, object], values: Sequence[object]) -> dict[str, object]:
    """Options by name, of what the controls hold; what is empty is left to its default."""
    return {name: None if value == "" else value for name, value in zip(controls, values, strict=True)}


class Told:
    """Wraps functions of the page: whatever they raise is shown in one line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, function: Any) -> Any:
        """The same function for an event of the page; no generator."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception as failure:
                raise self.error(failure) from None

        return call

    def error(self, failure: Exception) -> gr.Error:
        """A failure as the page shows it, until it is closed."""
        return gr.Error(escape(line_of(failure, self._folder)), duration=None, print_exception=False, title="Error")
