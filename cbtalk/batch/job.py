"""One video of a batch."""

from dataclasses import dataclass

from cbtalk.batch.remote_files import File, Url
from cbtalk.render.options import RenderOptions


@dataclass(frozen=True)
class Job:
    """A render to be done: `source` animated by `driving` into `output`.

    words: the options as the manifest has them, by name; options: what they mean. line: of the manifest, for messages.
    audio: sound behind a URL, in the place of that in the options.
    """

    source: File
    driving: File
    output: File
    words: tuple[tuple[str, str], ...]
    options: RenderOptions
    line: int | None = None
    audio: Url | None = None

    @property
    def inputs(self) -> list[File]:
        """The files that the job reads: source, driving video, and sound where it has its own."""
        audio = self.audio or self.options.audio
        return [self.source, self.driving, *([] if isinstance(audio, str) else [audio])]
