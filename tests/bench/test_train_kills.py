from pathlib import Path

import pytest

from bench.launch import Group
from bench.train_kills import Round, _faults, _steps, _train, _unlike_a_whole_run, _write_run
from cbtalk.train.state import checkpoints


@pytest.mark.slow
def test_what_a_killed_run_must_not_leave_is_found(tmp_path: Path) -> None:
    config, output = _write_run(tmp_path)
    assert Group(1, _train, config, "--max-steps", "5").codes() == [0] and _steps(output) == 5
    ended = Round("SIGKILL", 5, (-9,), {-9}, "step 5 is saved")
    assert not _faults(ended, output, 5)
    assert "6 steps were finished, then 5" in _faults(ended._replace(before=6), output, 5)[0]
    assert "7 steps were finished, then 5" in _faults(ended, output, 7)[0]
    assert "another step than 5" in _faults(ended._replace(said="after step 4 of 9, saved in run"), output, 5)[0]
    assert "ended with (None,)" in _faults(ended._replace(codes=(None,)), output, 5)[0]
    (output / ".log.csv.0.cbtalk-part").touch()
    assert not _unlike_a_whole_run(config, output, 7)  # the part is swept before the run goes on
    newest = checkpoints(output / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert "damaged training checkpoint" in _faults(ended._replace(said=""), output, 7)[0]
    assert "does not go on" in _unlike_a_whole_run(config, output, 9)[0]
