"""The command app."""

import importlib.util
import time
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from cbtalk.cli.machine import use
from cbtalk.cli.options import Device, Precision
from cbtalk.errors import ConfigError

_TICK = 0.2  # seconds between looks at what the user wants


def app(
    host: str = "127.0.0.1",
    port: int = 7860,
    weights: str = "mini",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    max_upload: int = 64,
    max_frames: int = 1500,
    max_megapixels: int = 24,
    max_jobs: int = 100,
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
) -> None:
    """Serve a page to try cbtalk in, on this machine; nothing is sent anywhere else.

    Three tabs: a portrait animated by a clip or a bundled motion, a portrait driven live by the webcam, and batches.
    What is uploaded and made lies in a temporary folder, which is removed when the page ends (Ctrl-C).

    Args:
        host: Address to listen at. 127.0.0.1 is this machine alone; 0.0.0.0 lets in all who reach it, with no password.
        port: Port to listen at.
        weights: A bundled model's name, a weights file, or hf:OWNER/NAME[@REVISION] (extra hub).
        device: Device of the model; auto takes the GPU if there is one.
        precision: Numbers that the model computes with, but for the keypoints; auto takes bf16 where it is faster, else
            fp32.
        threads: CPU threads for the model.
        max_upload: Largest file that is taken, MB.
        max_frames: Most frames of a driving clip that are rendered in one go.
        max_megapixels: Largest portrait, millions of pixels.
        max_jobs: Most renders of a batch.
        output: Folder in which batches are kept when the page ends.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the page needs gradio: pip install 'cbtalk[app]'")
    from cbtalk.app import AppOptions, Limits, served
    from cbtalk.interruptions import Interruptions
    from cbtalk.precision import dtype_of

    where = use(device, threads)
    options = AppOptions(
        _batches(weights, device, precision, threads),
        Limits(max_upload, max_frames, max_megapixels, max_jobs),
        where,
        dtype_of(precision, where),
        host,
        port,
        output,
    )
    with Interruptions(["the page ends"]) as interruptions, served(options) as address:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        while not interruptions.count:
            time.sleep(_TICK)


def _batches(weights: str, device: Device, precision: Precision, threads: int | None) -> Any:
    """The options of `cbtalk batch`, what the page does not ask for at its default."""
    from cbtalk.batch import BatchOptions
    from cbtalk.batch.command import options_of

    default = BatchOptions()
    kept = default.motion_bytes >> 20, default.download_bytes >> 20
    return options_of(weights, device, precision, None, None, threads, None, default.retries, *kept)
