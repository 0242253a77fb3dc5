"""The tab in which a portrait is animated by a clip or a bundled motion."""

from contextvars import copy_context
from typing import Any

import gradio as gr

from cbtalk.app.controls import Controls, Told, details, movement, words
from cbtalk.app.limits import DRIVINGS, IMAGES
from cbtalk.app.studio import Studio

OWN = "own"  # the choice of a clip of one's own

PROGRESS = gr.Progress()


def animate_tab(studio: Studio, told: Told) -> None:
    """Lay out the tab within the page that is being built."""
    with gr.Row():
        with gr.Column(scale=4):
            portrait = portrait_file("portrait")
            face = face_chooser()
            motion = gr.Radio(
                [*studio.motions, ("my own clip", OWN)],
                value=next(iter(studio.motions), OWN),
                label="Motion",
                info="; ".join(f"{name}: {motion.about}" for name, motion in studio.motions.items()) or None,
                elem_id="motion",
            )
            clip = gr.File(
                label="Driving clip: a video, or a motion file",
                file_types=list(DRIVINGS),
                height=140,
                visible=not studio.motions,
                elem_id="clip",
            )
            controls: Controls = {"face": face, **movement()}
            button = gr.Button("Animate", variant="primary", size="lg", elem_id="animate")
            with gr.Accordion("More options of cbtalk render", open=False):
                controls |= details()
        with gr.Column(scale=6):
            with gr.Row(equal_height=True):
                preview = preview_image()
                video = gr.Video(
                    label="Result",
                    interactive=False,
                    autoplay=True,
                    loop=True,
                    height=380,
                    buttons=[],
                    elem_id="result",
                )
            report = gr.Markdown(elem_id="report")
            download = gr.DownloadButton("Download", variant="primary", visible=False, elem_id="download")

    show_previews(studio, told, portrait, face, preview, controls["crop"])
    motion.change(lambda chosen: gr.update(visible=chosen == OWN), motion, clip, show_progress="hidden")

    @told
    def animate(
        source: str | None, chosen: str, own: str | None, *values: object, progress: gr.Progress = PROGRESS
    ) -> tuple[Any, ...]:
        context = copy_context()  # Gradio knows by it whose progress this is, and a render tells it in another thread

        def written(frames: int, expected: int | None) -> None:
            context.run(progress, (frames, expected), desc="animating", unit="frames")

        progress(0, desc="looking at the faces")
        made = studio.animate(source, own if chosen == OWN else chosen, words(controls, values), written)
        lines = "\n".join(f"- {line}" for line in made.lines)
        return str(made.video), gr.update(value=str(made.video), visible=True), lines

    button.click(
        animate,
        [portrait, motion, clip, *controls.values()],
        [video, download, report],
        concurrency_limit=1,
        show_progress_on=[video],
    )


def portrait_file(elem_id: str) -> gr.File:
    """The upload of a portrait."""
    return gr.File(label="Portrait: an image with a face", file_types=list(IMAGES), height=140, elem_id=elem_id)


def face_chooser() -> gr.Dropdown:
    """The choice of a face, shown where there are several."""
    return gr.Dropdown(
        ["largest"],
        value="largest",
        label="face",
        info="a number, or click on a face in the image",
        allow_custom_value=True,
        visible=False,
    )


def preview_image() -> gr.Image:
    """The image of what is found in the portrait."""
    return gr.Image(
        label="What is animated", interactive=False, height=380, buttons=[], format="jpeg", elem_id="preview"
    )


def show_previews(
    studio: Studio, told: Told, portrait: gr.File, face: gr.Dropdown, preview: gr.Image, crop: Any
) -> None:
    """Let the preview follow the portrait, the face chosen and, where there is one, the crop."""

    @told
    def met(source: str | None) -> tuple[Any, Any]:
        if source is None:
            return None, gr.update(choices=["largest"], value="largest", visible=False)
        look = studio.look(source, {})
        numbers = [str(number) for number in range(1, look.faces + 1)]
        chooser = gr.update(choices=["largest", *numbers], value="largest", visible=look.faces > 1)
        return look.image, chooser

    @told
    def again(source: str | None, chosen: str | None, square: str | None) -> Any:
        if source is None:
            return None
        return studio.look(source, {"face": chosen or None, "crop": square or None}).image

    def pointed(place: gr.SelectData) -> str:
        return f"{place.index[0]},{place.index[1]}"

    portrait.change(met, portrait, [preview, face])
    preview.select(pointed, None, face, show_progress="hidden")
    face.change(again, [portrait, face, crop], preview)
    crop.submit(again, [portrait, face, crop], preview)
