from pathlib import Path

from bench import training
from bench.ceilings import Ceilings
from bench.words import training_speed


def test_the_step_needs_no_file_but_its_configuration(tmp_path: Path) -> None:
    trainer = training._trainer(tmp_path, "cpu", "fp32")
    assert trainer.config.run.precision == "fp32" and not trainer.detector_alone
    assert trainer.objective.perceptual is None and trainer.loader.landmarks is None


def test_speed_in_words() -> None:
    record = {"batch": 4, "seconds": 2.0, "eager": 5.0, "operations": 3e11}
    training.add_share(record, Ceilings(1e10, 1e11, 1e11, 1e12, 1e9))
    assert record["share"] == 0.15
    said = training_speed(record)
    assert "2.00 samples a second" in said and "2.50 times as fast" in said and "15%" in said
