"""The command `cbtalk`."""

from cbtalk.cli.main import main

__all__ = ["main"]
