"""A failure as the one line that the command line would say."""

import sys
import traceback
from pathlib import Path

from cbtalk.app.work_folder import without_folder
from cbtalk.errors import CbtalkError


def line_of(failure: Exception, folder: Path) -> str:
    """One line for the user, without the page's own folder; what is cbtalk's fault is shown in full in the terminal."""
    if isinstance(failure, CbtalkError):
        text = str(failure)
    else:
        traceback.print_exception(failure, file=sys.stderr)
        text = f"internal: {type(failure).__name__}: {failure} (the terminal shows where)"
    return without_folder(" ".join(text.split()), folder)
