"""The page's folder for uploads and results, and names in messages without it."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def work_folder() -> Iterator[Path]:
    """A private temporary folder, which is removed at the end with all that was uploaded."""
    folder = Path(tempfile.mkdtemp(prefix="cbtalk-app-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def without_folder(text: str, folder: Path) -> str:
    """A message in which files below the folder go by their names alone, as the user knows them."""
    return re.sub(re.escape(str(folder)) + r"/(?:[^/\s:]+/)*", "", text)
