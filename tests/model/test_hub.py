"""Weights of repositories on the Hugging Face Hub, of which a small server on this machine stands in the place."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cbtalk
from cbtalk.errors import WeightsError
from cbtalk.model import hub
from cbtalk.model.checkpoint import save_weights
from tests.helpers.talkers import MakeTalker
from tests.model.hub_server import COMMIT, OTHER_COMMIT, Hub, Repository
from tests.model.hub_server import hub as stand_in

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hub)")

PROGRAM = """
import sys, time
from cbtalk.errors import CbtalkError
from cbtalk.model import hub
time.sleep = lambda _seconds: None  # the Hub's client waits between its tries
try:
    print(getattr(hub, sys.argv[1])(sys.argv[2]))
except CbtalkError as error:
    print(type(error).__name__, error)
"""

Call = Callable[..., str]


@pytest.fixture
def server() -> Iterator[Hub]:
    with stand_in() as state:
        files = {COMMIT: {"model.safetensors": b"new" * 1000}, OTHER_COMMIT: {"model.safetensors": b"old" * 1000}}
        state.repositories["me/talker"] = Repository({"main": COMMIT, "v1": OTHER_COMMIT}, files)
        yield state


def environment_of(server: Hub, folder: Path) -> dict[str, str]:
    """The environment of a process that knows of no other Hub, and of a cache in the folder alone."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return own | direct | {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "home")}


def run(program: list[str], environment: dict[str, str]) -> tuple[str, str]:
    """The two outputs of a Python program that ends well."""
    done = subprocess.run([sys.executable, "-c", *program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def call_with_warnings(server: Hub, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """As `call`, and all that is written on standard error."""

    def call(name: str, function: str = "fetch", **environment: str) -> tuple[str, str]:
        out, told = run([PROGRAM, function, name], environment_of(server, tmp_path) | environment)
        assert out.count("\n") == 1
        return out.strip(), told

    return call


@pytest.fixture
def call(call_with_warnings: Callable[..., tuple[str, str]]) -> Call:
    """A function of `cbtalk.model.hub` called in a process of its own: the line that it gives, or that of its error."""
    return lambda *words, **environment: call_with_warnings(*words, **environment)[0]


def test_a_file_is_fetched_once_and_then_found_without_network(server: Hub, call: Call) -> None:
    assert Path(call("hf:me/talker")).read_bytes() == b"new" * 1000
    assert Path(call("hf:me/talker@v1")).read_bytes() == b"old" * 1000
    before = len([line for line in server.requests if line.startswith("GET")])
    assert Path(call("hf:me/talker")).read_bytes() == b"new" * 1000
    assert len([line for line in server.requests if line.startswith("GET")]) == before
    server.requests.clear()
    assert Path(call("hf:me/talker@v1", HF_HUB_OFFLINE="1")).read_bytes() == b"old" * 1000
    assert not server.requests


def test_a_pinned_name_stays_with_its_commit(server: Hub, call: Call) -> None:
    name = call("hf:me/talker@v1", "pinned")
    assert name == f"hf:me/talker@{OTHER_COMMIT}"
    server.requests.clear()
    server.repositories["me/talker"].revisions["v1"] = COMMIT
    assert Path(call(name)).read_bytes() == b"old" * 1000
    assert not server.requests
    assert hub.pinned("mini") == "mini"


def test_small_files_are_verified_by_the_checksum_of_git(server: Hub, call: Call) -> None:
    server.repositories["me/talker"].large = False
    file = Path(call("hf:me/talker"))
    assert file.read_bytes() == b"new" * 1000
    file.resolve().write_bytes(b"odd" * 1000)
    assert "altered or damaged" in call("hf:me/talker")


@pytest.mark.parametrize("offline", ["0", "1"])
def test_an_altered_file_in_the_cache_is_not_used(call: Call, offline: str) -> None:
    file = Path(call("hf:me/talker"))
    file.resolve().write_bytes(b"odd" * 1000)
    line = call("hf:me/talker", HF_HUB_OFFLINE=offline)
    assert line.startswith("WeightsError hf:me/talker: ") and "altered or damaged" in line
    assert f"delete {file.resolve()}" in line
    file.resolve().unlink()  # as the line says
    assert Path(call("hf:me/talker")).read_bytes() == b"new" * 1000


def test_what_the_server_sends_in_place_of_the_file_is_not_used(server: Hub, call: Call) -> None:
    server.repositories["me/talker"].sent = b"odd" * 1000
    assert "altered or damaged" in call("hf:me/talker")


def test_a_half_sent_file_is_not_used_and_the_next_try_succeeds(server: Hub, call: Call, tmp_path: Path) -> None:
    repository = server.repositories["me/talker"]
    repository.closes_after = 100
    assert call("hf:me/talker").startswith("TransferError hf:me/talker: cannot be fetched: ")
    assert not list((tmp_path / "home").rglob("model.safetensors"))
    repository.closes_after = None
    assert Path(call("hf:me/talker")).read_bytes() == b"new" * 1000


def test_refusals_say_in_one_line_what_to_do(server: Hub, call: Call, tmp_path: Path) -> None:
    server.repositories["me/gated"] = Repository({"main": COMMIT}, {COMMIT: {}}, gated=True)
    server.repositories["me/empty"] = Repository({"main": COMMIT}, {COMMIT: {}})
    assert "hf:me/nobody: no such repository on " in call("hf:me/nobody")
    assert f"hf:me/gated: is gated; ask for access on {server.url}/me/gated and log in" in call("hf:me/gated")
    assert "hf:me/talker@v7: the repository has no revision v7" in call("hf:me/talker@v7")
    assert "hf:me/empty: the repository holds no model.safetensors" in call("hf:me/empty")
    for name in ("hf:", "hf:talker", "hf:me/talker@", "hf:me/talker/model", "hf:me/talk er"):
        assert f"{name}: is no repository; write hf:OWNER/NAME" in call(name)
    assert "is no name of a repository" in call("hf:me/talker..odd")
    assert "HF_HUB_OFFLINE forbids" in call("hf:me/talker", HF_HUB_OFFLINE="1")
    blocked = tmp_path / "blocked" / "huggingface_hub"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError")
    root = str(Path(cbtalk.__file__).parents[1])
    line = call("hf:me/talker", PYTHONPATH=f"{blocked.parent}{os.pathsep}{root}")
    assert line == "WeightsError hf:me/talker: needs the package huggingface_hub: pip install 'cbtalk[hub]'"


def test_a_file_without_a_checksum_is_not_used(tmp_path: Path) -> None:
    """As in a cache on a file system without links, or behind a server that has its own kind of ETag."""
    (tmp_path / "W-1a2b").write_bytes(b"weights")
    with pytest.raises(WeightsError, match="unset HF_HUB_DISABLE_SYMLINKS"):
        hub._verify("hf:me/talker", tmp_path / "W-1a2b")
    (tmp_path / "link").symlink_to(tmp_path / "W-1a2b")
    with pytest.raises(WeightsError, match="its server tells no checksum, only 'W-1a2b'"):
        hub._verify("hf:me/talker", tmp_path / "link")


def test_a_hub_that_cannot_be_reached_is_the_machines_fault(call: Call) -> None:
    line = call("hf:me/talker", HF_ENDPOINT="http://127.0.0.1:9")
    assert line.startswith("TransferError hf:me/talker: is not in the cache") and "check the network" in line


def test_the_tries_of_the_client_are_one_line(call_with_warnings: Callable[..., tuple[str, str]]) -> None:
    _, told = call_with_warnings("hf:me/talker", HF_ENDPOINT="http://127.0.0.1:9")
    assert told.splitlines() == [
        "hf:me/talker: the Hub does not answer as it should; it is tried again for up to half a minute"
    ]


def test_weights_are_named_so_wherever_they_are_named(server: Hub, tmp_path: Path, tiny: MakeTalker) -> None:
    save_weights(tmp_path / "w.safetensors", tiny())
    server.repositories["me/talker"].files[COMMIT]["model.safetensors"] = (tmp_path / "w.safetensors").read_bytes()
    program = """
from pathlib import Path
import cbtalk
from cbtalk.batch.command import options_of
from cbtalk.options.batch import Limits, Workers
from cbtalk.train.initial import start_from
talker = cbtalk.load("hf:me/talker")
print(start_from(talker, Path("hf:me/talker")))
workers = Workers("hf:me/talker", device="cpu", precision="fp32", workers=1, threads=1)
print(options_of(workers, Limits()).weights)
"""
    out, _ = run([program], environment_of(server, tmp_path))
    taken, weights = out.splitlines()
    assert taken.startswith("hf:me/talker: ") and taken.endswith("entries taken over")
    assert weights == f"hf:me/talker@{COMMIT}"
