"""Folders of PNG files that appear complete or not at all."""

import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cbtalk.atomic import SUFFIX

_COMPRESSION = 3  # of zlib: twice as fast as the usual 6, and a twentieth larger


class FrameFolder:
    """Writes images as 000000.png, 000001.png, ... into a folder; use it as a context manager.

    The folder appears under its name when the block ends; when the block fails, nothing is left. What a killed process
    leaves behind is `.<name>.<random>.cbtalk-part` beside it, as of `atomic_path`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
        self._count = 0

    def __enter__(self) -> Self:
        """Create the temporary folder."""
        self._temporary.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the folder in its place, of which an older one is removed first; or remove it after an error."""
        try:
            if kind is None:
                shutil.rmtree(self._path, ignore_errors=True)
                self._temporary.rename(self._path)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def write(self, image: NDArray[np.uint8], pts: int, duration: int | None = None) -> None:
        """Append an image (H, W, 3) uint8 RGB; a folder of frames does not tell when they are shown."""
        with (self._temporary / f"{self._count:06}.png").open("wb") as file:
            Image.fromarray(image).save(file, format="PNG", compress_level=_COMPRESSION)
            file.flush()
            os.fsync(file.fileno())
        self._count += 1
