"""One video of a batch."""

from dataclasses import dataclass
from pathlib import Path

from cbtalk.render.options import RenderOptions


@dataclass(frozen=True)
class Job:
    """A render to be done: `source` animated by `driving` into `output`.

    words: the options as the manifest has them, by name; options: what they mean. line: of the manifest, for messages.
    """

    source: Path
    driving: Path
    output: Path
    words: tuple[tuple[str, str], ...]
    options: RenderOptions
    line: int | None = None

    @property
    def inputs(self) -> list[Path]:
        """The files that the job reads."""
        audio = self.options.audio
        return [self.source, self.driving, *([audio] if isinstance(audio, Path) else [])]
