import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from bench import gpu_check, gpu_rehearsal
from bench.gpu_check import LOG_BYTES, Step, architecture, main, markdown, run
from bench.gpu_rehearsal import rehearse


def step(code: str, limit: float = 60, name: str = "a step", group: str = "a group") -> Step:
    return Step(name, group, (sys.executable, "-c", code), limit)


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' steps are the same where a GPU answers."""
    monkeypatch.setattr(gpu_check, "_asked", lambda query: "")


def test_a_step_leaves_its_output_and_its_last_line(tmp_path: Path) -> None:
    outcome = run(step("print('first'); print('last')"), tmp_path / "log", 100)
    assert (outcome.code, outcome.summary) == (0, "last")
    assert (tmp_path / "log").read_text() == "first\nlast\n"


def test_a_step_that_fails_is_told_from_one_that_hangs(tmp_path: Path) -> None:
    failed = run(step("raise SystemExit(3)"), tmp_path / "log", 100)
    hung = run(step("import time; print('busy', flush=True); time.sleep(100)", limit=5), tmp_path / "log", 100)
    assert (failed.code, hung.code) == (3, None)
    assert hung.summary == "cut off: busy" and hung.seconds < 50


def test_a_step_is_not_begun_without_time(tmp_path: Path) -> None:
    outcome = run(step("open('begun', 'w')"), tmp_path / "log", 3)
    assert outcome.code is None and "out of time" in outcome.summary


def test_what_a_step_that_hangs_has_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import pathlib, time; time.sleep(8); pathlib.Path({str(mark)!r}).touch()"
    begin = time.monotonic()
    run(
        step(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])", limit=5), tmp_path / "log", 9
    )
    time.sleep(max(0.0, begin + 10 - time.monotonic()))
    assert not mark.exists()


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    outcome = run(Step("a step", "a group", ("no-such-program",), 60), tmp_path / "log", 100)
    assert outcome.code is None and "no-such-program" in outcome.summary


def test_losing_one_part_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        step("raise SystemExit(1)", name="build", group="build"),
        step("print('flow_warp 1.0 us')", name="bench", group="bench"),
    ]
    monkeypatch.setattr(gpu_check, "steps", lambda out: iter(parts))
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path / "results")])
    assert main() == 1
    written = json.loads((tmp_path / "results" / "gpu_check.json").read_text())
    assert [(one["name"], one["code"]) for one in written] == [("build", 1), ("bench", 0)]
    report = (tmp_path / "results" / "gpu_check.md").read_text()
    assert "| build | exit 1 |" in report and "flow_warp 1.0 us" in report


def test_a_report_without_a_benchmark_says_so(tmp_path: Path) -> None:
    assert "not run" in markdown([], [tmp_path / "bench.log"])


def test_neighbours_of_a_group_run_together(tmp_path: Path) -> None:
    """Each waits for the file of the other."""
    wait = "import pathlib, time\npathlib.Path({0!r}).touch()\nwhile not pathlib.Path({1!r}).exists(): time.sleep(0.05)"
    files = str(tmp_path / "one"), str(tmp_path / "two")
    parts = [step(wait.format(*pair), name=Path(pair[0]).name) for pair in (files, files[::-1])]
    assert [one.code for one in gpu_check.check(parts, tmp_path / "out")] == [0, 0]


def test_logs_come_back_in_one_file_each_by_its_end(tmp_path: Path) -> None:
    parts = [step(f"print('x' * {LOG_BYTES}); print('the end')", name=name, group=name) for name in ("one", "two")]
    gpu_check.check(parts, tmp_path)
    with tarfile.open(tmp_path / "logs.tar.gz") as archive:
        assert archive.getnames() == ["one.log", "two.log"]
        entry = archive.extractfile("two.log")
        assert entry is not None
        text = entry.read()
    assert len(text) <= LOG_BYTES and text.endswith(b"the end\n")


@pytest.mark.parametrize("brought", [False, True])
def test_the_limits_are_within_the_time_and_keep_that_of_the_bench(
    brought: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library.so"
    if brought:
        library.touch()
    monkeypatch.setattr(gpu_check, "LIBRARY", library)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    planned = list(gpu_check.steps(tmp_path))
    assert ("build" in {one.name for one in planned}) != brought
    groups = {one.group: one.limit for one in planned}
    assert list(groups)[-3:] == ["tests", "profile", "sanitizers"]
    assert sum(groups.values()) <= gpu_check.SECONDS and groups["bench"] >= 200
    seconds = next(one.command for one in planned if one.name == "bench")
    assert float(seconds[seconds.index("--seconds") + 1]) < groups["bench"]


@pytest.mark.parametrize(("capability", "expected"), [("9.0", "90a-real"), ("8.0", "80-real"), ("", ""), ("[N/A]", "")])
def test_the_library_is_built_for_the_gpu_that_is_there(
    capability: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "_asked", lambda query: capability)
    assert architecture() == expected


def test_a_rehearsal_lets_each_step_fail_and_lists_what_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    planned = [Step(name, name, ("a-program", "--json", f"{name}.json"), 60) for name in ("bench", "model")]
    assert rehearse([*planned, Step("tests", "tests", ("a-program",), 60)]) == 0
    printed = capsys.readouterr().out
    assert "each of 3 steps failed once and cost no other" in printed
    for part in ("gpu_check.md", "gpu_check.json", "logs.tar.gz", "bench.json", "model.json", " 120 s  tests"):
        assert part in printed, part


def test_a_rehearsal_tells_of_files_that_would_not_come_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_rehearsal, "MOST_FILES", 2)
    monkeypatch.setattr(gpu_rehearsal, "MOST_BYTES", 100)
    assert rehearse([Step("tests", "tests", ("a-program",), 60)]) == 1
    printed = capsys.readouterr().out
    assert "3 files, of 2 that come back" in printed and "logs.tar.gz is too large" in printed


def test_the_steps_need_no_package_that_a_machine_lent_for_its_gpu_may_lack() -> None:
    """Those of the extras and the decoder; the packages of torch, numpy and pytest are there."""
    code = """
import importlib, sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("av", "tyro", "nvtx", "faiss", "matplotlib", "skimage", "lpips"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Lacking())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
    modules = [f"bench.{name}" for name in ("gpu", "gpu_smoke", "gpu_model", "gpu_once", "gpu_check", "gpu_rehearsal")]
    found = subprocess.run([sys.executable, "-c", code, *modules], cwd=gpu_check.ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_the_steps_name_files_that_exist(tmp_path: Path) -> None:
    for one in gpu_check.steps(tmp_path):
        for part in one.command:
            if part.startswith("tests/"):
                assert (gpu_check.ROOT / part).exists(), part
            if part.startswith("bench."):
                assert (gpu_check.ROOT / f"{part.replace('.', '/')}.py").exists(), part


def test_every_file_with_tests_for_a_gpu_is_run(tmp_path: Path) -> None:
    named = {part for one in gpu_check.steps(tmp_path) for part in one.command}
    tests = [file for file in gpu_check.ROOT.glob("tests/**/test_*.py") if file != Path(__file__)]
    on_gpu = {str(file.relative_to(gpu_check.ROOT)) for file in tests if "tests.kernels.where" in file.read_text()}
    assert len(on_gpu) > 5 and on_gpu - named == set()
