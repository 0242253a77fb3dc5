"""The Hugging Face Hub's part in a download, on this machine."""

import contextlib
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

COMMIT = "c" * 40
OTHER_COMMIT = "d" * 40

_FILE = re.compile(r"/([^/]+)/([^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """A repository: its revisions by name, each a commit, and the file of each commit by its name."""

    revisions: dict[str, str]
    files: dict[str, dict[str, bytes]]  # commit -> name -> content
    gated: bool = False
    large: bool = True  # kept as large files are, known by SHA-256; else by git's checksum
    sent: bytes | None = None  # in place of any file's content
    closes_after: int | None = None  # bytes of a file, with which the connection ends each time


@dataclass
class Hub:
    """The repositories by owner/name, and the requests for files that came."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        match = _FILE.fullmatch(unquote(self.path))
        if match is None:  # the client asks for more than files, and does without
            return self._refuse(404, "")
        owner, name, revision, file = match.groups()
        self.hub.requests.append(f"{self.command} {self.path}")
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None:
            return self._refuse(401, "RepoNotFound")
        if repository.gated:
            return self._refuse(401, "GatedRepo")
        commit = revision if revision in repository.files else repository.revisions.get(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        content = repository.files[commit].get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        digest = hashlib.sha256(content) if repository.large else hashlib.sha1(b"blob %d\0" % len(content) + content)
        content = content if repository.sent is None else repository.sent
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest.hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content[: repository.closes_after])
        self.close_connection = True
        return None

    def _refuse(self, status: int, reason: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def hub() -> Iterator[Hub]:
    """A Hub without repositories, for the time being; HF_ENDPOINT is to be its `url`."""
    state = Hub()
    handler = type("Handler", (_Handler,), {"hub": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
