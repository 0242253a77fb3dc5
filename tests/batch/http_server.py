"""A folder behind HTTP, on this machine."""

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; those whose name begins with a number are answered with it as an error, `flaky` ones at times."""

    def send_head(self):  # type: ignore[no-untyped-def]
        name = Path(self.path).name
        refused = self.server.refused  # type: ignore[attr-defined]
        if name[:3].isdecimal():
            self.send_error(int(name[:3]))
            return None
        if name.startswith("flaky") and self.command == "GET" and name not in refused:
            refused.add(name)
            self.send_error(503)
            return None
        return super().send_head()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder's files, for the time being."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    vars(server)["refused"] = set()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
