"""The page: its three tabs, its looks, and what Gradio is told so that nothing leaves the machine."""

from pathlib import Path

import gradio as gr

from cbtalk.app.animate_tab import animate_tab
from cbtalk.app.batch_tab import batch_tab
from cbtalk.app.controls import Told
from cbtalk.app.live_tab import live_tab
from cbtalk.app.studio import Studio
from cbtalk.batch import BatchOptions

HEAD = """## cbtalk
A portrait moves as a face in a clip does, or as yours before the camera. All of it is computed on this machine.
Animate only people who agreed to it, and say that the result is synthetic."""

STYLE = """
#screen img { display: block; margin: auto; height: 330px; border-radius: 8px; }
#screen p { text-align: center; margin-top: 8px; font-variant-numeric: tabular-nums; }
"""

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # of the reader's machine: none is fetched
MONO = ("ui-monospace", "Consolas", "monospace")
THEME = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=MONO)


STALE = 6 * 3600  # seconds after which an upload is removed while the page goes on


def page(studio: Studio, batches: BatchOptions, output: Path | None) -> gr.Blocks:
    """The page, not yet served. output: the folder of the batches; None for the studio's, which is removed."""
    told = Told(studio.folder)
    with gr.Blocks(title="cbtalk", analytics_enabled=False, delete_cache=(STALE // 6, STALE)) as blocks:
        gr.Markdown(HEAD)
        with gr.Tab("Animate"):
            animate_tab(studio, told)
        with gr.Tab("Live"):
            live_tab(studio, told)
        with gr.Tab("Batch"):
            kept = "Download what you want to keep: all is removed when the page ends." if output is None else "See {}."
            batch_tab(batches, studio.limits, output or studio.folder, kept, told)
    return blocks
