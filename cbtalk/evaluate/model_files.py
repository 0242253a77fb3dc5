"""Where the files of other people's networks lie: in one folder, under the names that they are published with."""

from pathlib import Path

from cbtalk.errors import WeightsError


def find_file(models: Path | None, *patterns: str) -> Path:
    """The file of the folder `models` whose name matches one of `patterns`, earlier ones first.

    Raises:
        FileNotFoundError: there is none; says which name was looked for.
        WeightsError: `models` is no folder.
    """
    if models is None:
        raise FileNotFoundError(f"no folder of models given (--models), with {' or '.join(patterns)} in it")
    if not models.is_dir():
        raise WeightsError(f"{models}: not a folder of model files")
    for pattern in patterns:
        for path in sorted(models.glob(pattern)):
            return path
    raise FileNotFoundError(f"no {' or '.join(patterns)} in {models}")
