"""The command for the page."""

import importlib.util
import time
from pathlib import Path
from typing import Annotated

from cbtalk.cli.machine import use
from cbtalk.errors import ConfigError
from cbtalk.options import batch
from cbtalk.options.app import Address, Largest
from cbtalk.options.machine import Machine
from cbtalk.options.words import OUTPUT_FOLDER

_TICK = 0.2  # seconds between looks at what the user wants


def app(
    output: Annotated[Path | None, OUTPUT_FOLDER] = None,
    address: Address = Address(),
    limit: Largest = Largest(),
    machine: Machine = Machine(),
) -> None:
    """Serve a page to try cbtalk in, on this machine; nothing is sent anywhere else.

    Three tabs: a portrait animated by a clip or a bundled motion, a portrait driven live by the webcam, and batches.
    What is uploaded and made lies in a temporary folder, which is removed when the page ends (Ctrl-C).

    Examples:

        cbtalk app
        cbtalk app --port 8000 --output videos --max-frames 250

    Args:
        output: Folder in which batches are kept when the page ends.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the page needs gradio: pip install 'cbtalk[app]'")
    from cbtalk.app import AppOptions, Limits, served
    from cbtalk.batch.command import options_of
    from cbtalk.interruptions import Interruptions
    from cbtalk.precision import dtype_of

    where = use(machine)
    options = AppOptions(
        options_of(batch.Workers(**vars(machine)), batch.Limits()),
        Limits(*vars(limit).values()),
        where,
        dtype_of(machine.precision, where),
        **vars(address),
        output=output,
    )
    with Interruptions(["the page ends"]) as interruptions, served(options) as url:
        print(f"{url} (Ctrl-C ends it)", flush=True)
        while not interruptions.count:
            time.sleep(_TICK)
