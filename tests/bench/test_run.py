import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import run
from bench.case import Case, Setting
from bench.cases import OPS, cases
from bench.ceilings import Ceilings
from bench.peers import COMPILED
from bench.readme import shown
from tests.bench.test_measure import a_case, times

CEILINGS = Ceilings(1e9, 1e9, 1e9, 1e9, 1e9, copies=((1000, 1e9),))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """The cases that the command finds instead of the ops'."""
    found: list[Case] = []
    monkeypatch.setattr(run, "cases", lambda *_, **__: found)
    monkeypatch.setattr(run, "measure_ceilings", lambda device, seconds: CEILINGS)
    monkeypatch.setattr(run, "keep_freed_memory", lambda: None)  # it concerns the whole process
    return found


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["run.py", "--device", "cpu", "--quick", "--threads", threads, *arguments])
    return run.main()


def test_a_wrong_kernel_fails_the_command_and_the_right_one_is_still_timed(
    planted: list[Case], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted += [a_case(times(3), {}), a_case(times(2), {"peer": times(2)})]
    html, figures, trace = tmp_path / "run.html", tmp_path / "run.json", tmp_path / "trace.json"
    files = ("--html", str(html), "--json", str(figures), "--profile", str(trace))
    assert command(monkeypatch, "--op", "flow_warp", *files) == 1
    shown = capsys.readouterr().out
    assert "FAIL: not the double" in shown and "x ours" in shown
    wrong, right = json.loads(figures.read_text())["ops"]
    assert "times" not in wrong and set(right["times"]) == {"cbtalk", "peer"} and right["floor"]["share"] > 0
    assert "FAIL: not the double" in html.read_text()
    assert "times (8)" in {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}


def test_an_earlier_run_is_the_base_of_a_later_one(
    planted: list[Case], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.append(a_case(times(2), {"peer": times(2)}))
    first = tmp_path / "run.json"
    assert command(monkeypatch, "--op", "flow_warp", "--json", str(first)) == 0
    base = json.loads(first.read_text())
    ratio = base["ops"][0]["ratios"]["peer"]
    base["ops"][0]["ratios"]["peer"] = {key: 100 * value for key, value in ratio.items()}
    first.write_text(json.dumps(base))
    assert command(monkeypatch, "--op", "flow_warp", "--base", str(first)) == 0
    assert "1 ratios changed beyond the noise" in capsys.readouterr().out


def test_the_script_runs_from_anywhere(tmp_path: Path) -> None:
    script = Path(run.__file__)
    done = subprocess.run([sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "--profile" in done.stdout, done.stderr


def test_every_op_has_cases_forward_and_swept() -> None:
    for op in OPS:
        assert cases(Setting(), [op], direction="fwd")
        swept = [case.name for case in cases(Setting(sweep=True), [op])]
        assert len(swept) == len(set(swept)) and set(swept) != {case.name for case in cases(Setting(), [op])}


def test_readme_shows_every_op_beside_peers_that_exist() -> None:
    assert {case.op for case in shown()} == set(OPS)
    assert all(set(case.shown) <= set(case.peers) for case in shown())


def test_peers_are_chosen_by_name_and_the_compiled_ones_only_so() -> None:
    for case in cases(Setting(), ["flow_warp"]):
        assert isinstance(case.peers[COMPILED], str)
    asked = cases(Setting(), ["flow_warp"], peers=["COMPILE"])
    assert all(set(case.peers) == {COMPILED} and callable(case.peers[COMPILED]) for case in asked)
