"""The model, and the machine that runs it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cbtalk.options.words import NUMBER, shown

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

Quiet = Annotated[bool, shown(help="No progress and no summary; warnings and errors only.")]


@dataclass(frozen=True)
class Weights:
    """The model."""

    weights: Annotated[str, shown("NAME|FILE")] = "mini"
    """A bundled model's name, a weights file, or hf:OWNER/NAME[@REVISION] (extra hub)."""


@dataclass(frozen=True)
class Place:
    """The machine."""

    device: Annotated[Device, shown()] = "auto"
    """Device of the model; auto takes the GPU if there is one."""
    threads: Annotated[int | None, NUMBER] = None
    """CPU threads for the model; as many as there are cores without it."""


@dataclass(frozen=True)
class Machine(Place, Weights):
    """The model and the machine."""

    precision: Annotated[Precision, shown()] = "auto"
    """Numbers that the model computes with, but for the keypoints; auto takes bf16 where it is faster, else fp32."""
