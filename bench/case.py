"""What a bench file of an op hands to bench/run.py: `cases() -> list[Case]` in bench/ops/<op>.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
Thunk = Callable[[], object]

# Given the inputs, does what is not timed (an index built, leaves that require gradients) and gives what is.
Prepare = Callable[..., Thunk]


@dataclass(frozen=True)
class Case:
    """One size of one op: ours against its peers on the same inputs.

    `ours` calls the public op with backend="auto", so that bench/run.py can force a backend.
    A peer that cannot run here is a string: the reason. `check(inputs, result)` gives None for a right result and
    else what is wrong with it; ours is timed only if it is right, a peer is timed with the remark beside it.
    """

    name: str
    make_inputs: Callable[[torch.Generator], Inputs]
    ours: Prepare
    peers: Mapping[str, Prepare | str] = field(default_factory=dict)
    check: Callable[[Inputs, object], str | None] = field(default=lambda inputs, result: None)
