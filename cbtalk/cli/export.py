"""The command that writes a talker for other programs."""

from pathlib import Path
from typing import Annotated

from cbtalk.errors import ConfigError
from cbtalk.options.machine import Weights
from cbtalk.options.words import FOLDER


def export(
    onnx: Annotated[Path | None, FOLDER] = None,
    torch: Annotated[Path | None, FOLDER] = None,
    model: Weights = Weights(),
) -> None:
    """Write a talker as files for programs that have no cbtalk: ONNX, or torch alone.

    Two files each: encode, which a source image goes through once, and animate, for every driving frame.
    docs/guides/export.md shows how they are used.

    Examples:

        cbtalk export --onnx exported
        cbtalk export --torch exported --weights runs/mini/weights.safetensors

    Args:
        onnx: Folder for encode.onnx and animate.onnx; it is made.
        torch: Folder for encode.pt2 and animate.pt2, which torch.export.load takes; it is made.
    """
    if onnx is None and torch is None:
        raise ConfigError("name a folder: --onnx FOLDER, --torch FOLDER, or both")
    from cbtalk.export import write_onnx, write_torch
    from cbtalk.model.checkpoint import load

    talker = load(model.weights)
    for write, folder in ((write_onnx, onnx), (write_torch, torch)):
        for path in write(talker, folder) if folder is not None else ():
            print(f"{path}: written")
