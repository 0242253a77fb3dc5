"""The tab in which many renders are done."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from cbtalk.app.batches import COLUMNS, PageBatch, every_pair
from cbtalk.app.controls import Told
from cbtalk.app.limits import DRIVINGS, IMAGES, Limits
from cbtalk.batch import BatchOptions, Entry
from cbtalk.batch.ledger import STATES
from cbtalk.batch.manifest import SUFFIXES
from cbtalk.batch.report import totals

SHOWN = ("output", "state", "frames", "seconds", "error")
TICK = 0.5  # seconds between looks at the ledger


def batch_tab(options: BatchOptions, limits: Limits, folder: Path, kept: str, told: Told) -> None:
    """Lay out the tab within the page that is being built.

    folder: the parent of the batches' folders; kept: what is told of a finished one's folder, {}.
    """
    with gr.Row():
        with gr.Column(scale=4):
            files = gr.File(
                label="Portraits and driving clips",
                file_count="multiple",
                file_types=[*IMAGES, *DRIVINGS],
                height=180,
                elem_id="batch-files",
            )
            manifest = gr.File(
                label="Manifest in place of the table (CSV or JSON Lines)",
                file_types=list(SUFFIXES),
                height=170,
                elem_id="manifest",
            )
        with gr.Column(scale=6):
            table = gr.Dataframe(
                headers=list(COLUMNS),
                type="array",
                row_count=1,
                column_count=len(COLUMNS),
                interactive=True,
                label="Renders: every image by every clip, to be changed as you like",
                elem_id="jobs",
            )
            with gr.Row():
                button = gr.Button("Render all", variant="primary", size="lg", scale=4, elem_id="render-all")
                stop = gr.Button("Stop", size="lg", scale=1, elem_id="stop-batch")
            running: gr.State = gr.State(None)
            state = gr.Markdown(elem_id="batch-state")
            report = gr.Dataframe(
                headers=list(SHOWN), interactive=False, label="Report", visible=False, elem_id="batch-report"
            )
            results = gr.File(
                label="Results", file_count="multiple", interactive=False, visible=False, elem_id="results"
            )

    files.change(lambda names: every_pair(names or []), files, table, show_progress="hidden")

    def work(
        names: list[str] | None, listed: str | None, rows: Sequence[Sequence[object]]
    ) -> Iterator[tuple[Any, ...]]:
        try:
            batch = PageBatch(names or [], listed, rows, limits, folder)
            batch.start(batch.check(options.weights), options)
            yield gr.skip(), gr.skip(), gr.skip(), batch
            ended = False
            while not ended:
                ended = batch.finished(TICK)
                entries = batch.entries()
                yield in_words(entries), gr.update(value=cells(entries), visible=True), gr.skip(), gr.skip()
            files = [str(path) for path in batch.results()]
            words = f"{batch.summary}. {kept.format(batch.folder)}"
            yield words, gr.skip(), gr.update(value=files, visible=True), None
        except Exception as failure:
            raise told.error(failure) from None

    button.click(
        work,
        [files, manifest, table],
        [state, report, results, running],
        concurrency_limit=1,
        show_progress="minimal",
    )
    stop.click(ask_to_stop, running, show_progress="hidden")


def ask_to_stop(batch: PageBatch | None) -> None:
    """Stops the batch, and says so, where one is still running."""
    if batch is not None and batch.stop():
        gr.Info("The renders at work will be finished, no others begun. Stop once more ends these, too.")


def in_words(entries: Sequence[Entry]) -> str:
    """The state of a batch, in a line."""
    counts = [f"{sum(entry.state == state for entry in entries)} {state}" for state in STATES]
    return f"{', '.join(counts)}; {totals(entries)[0]} frames"


def cells(entries: Sequence[Entry]) -> list[list[object]]:
    """Rows of the report."""
    return [[_cell(getattr(entry, name)) for name in SHOWN] for entry in entries]


def _cell(value: object) -> object:
    if isinstance(value, float):
        return round(value, 1)
    return "" if value is None else value
