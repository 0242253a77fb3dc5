"""The tab in which the webcam drives a portrait."""

import base64
import io
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cbtalk.app.animate_tab import portrait_file
from cbtalk.app.controls import DEFAULTS, Told
from cbtalk.app.live import LiveTalker
from cbtalk.app.studio import Studio
from cbtalk.options.render import STRONGEST

FRAME_SECONDS = 0.04  # between frames that the browser sends
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
JPEG_QUALITY = 90

SCREEN = '<img alt="the portrait as it moves" src="${value.image}"><p>${value.words}</p>'
NOTHING = {"image": "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=", "words": "Choose a portrait first."}


def live_tab(studio: Studio, told: Told) -> None:
    """Lay out the tab within the page that is being built."""
    session = gr.State()
    with gr.Row():
        with gr.Column(scale=4):
            portrait = portrait_file("live-portrait")
            strength = gr.Slider(0, STRONGEST, DEFAULTS.strength, step=0.05, label="strength", info="of the motion")
            anew = gr.Button("Begin anew", elem_id="anew")
            gr.Markdown(
                "Look straight at the camera and press **Record**: your first image counts as the pose of the "
                "portrait. *Begin anew* takes your pose of that moment. One image is worked on at a time; those that "
                "come meanwhile are left out, but for the newest, so that the delay does not grow. Nothing is kept."
            )
        with gr.Column(scale=6), gr.Row(equal_height=True):
            webcam = gr.Image(
                label="Webcam",
                sources=["webcam"],
                streaming=True,
                type="numpy",
                height=380,
                webcam_options=gr.WebcamOptions(mirror=True, constraints=CAMERA),
                elem_id="webcam",
            )
            screen = gr.HTML(NOTHING, html_template=SCREEN, elem_id="screen", container=True, label="Result")

    @told
    def opened(source: str | None, strong: float) -> tuple[LiveTalker | None, dict[str, str]]:
        if source is None:
            return None, NOTHING
        live = studio.live(source, {"strength": strong})
        return live, {"image": data_url(live.portrait), "words": "Ready: press Record."}

    @told
    def arrived(frame: NDArray[np.uint8] | None, live: LiveTalker | None) -> Any:
        if live is None or frame is None:
            return gr.skip()
        live.offer(frame)
        newest = live.newest()
        if newest is None:
            return gr.skip() if live.has_face else {"image": data_url(live.portrait), "words": "No face in view yet."}
        return {"image": data_url(newest.image), "words": in_words(live)}

    def begin_anew(live: LiveTalker | None) -> None:
        if live is not None:
            live.begin_anew()

    gr.on([portrait.change, strength.release], opened, [portrait, strength], [session, screen], concurrency_limit=1)
    anew.click(begin_anew, session, None, show_progress="hidden")
    # Gradio, too, keeps the newest frame alone while this runs. It runs for an instant only: the work is done beside.
    webcam.stream(
        arrived,
        [webcam, session],
        screen,
        stream_every=FRAME_SECONDS,
        time_limit=None,
        concurrency_limit=None,
        show_progress="hidden",
    )


def in_words(live: LiveTalker) -> str:
    """The pace of a session, in a line."""
    figures = live.figures
    if figures is None:
        return ""
    return (
        f"{figures.rate:.1f} images a second, {figures.latency * 1000:.0f} ms from a frame's arrival to its image, "
        f"{figures.dropped} frames left out"
    )


def data_url(image: NDArray[np.uint8]) -> str:
    """An image (H, W, 3) uint8 as text that a browser shows, so that no file is left of it."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
