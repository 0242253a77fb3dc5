"""All cases of the ops, for the benchmarks of the CPU and the GPU and for tests/bench."""

import importlib
from collections.abc import Sequence
from dataclasses import replace

from bench.case import Case, Setting
from bench.peers import COMPILED
from cbtalk.ops.examples import EXAMPLES

OPS = [example.name for example in EXAMPLES]

# Imported at once: they also tell torch's counter the operations of each op.
_MODULES = {op: importlib.import_module(f"bench.ops.{op}") for op in OPS}


def cases(
    setting: Setting, ops: Sequence[str] = OPS, *, direction: str = "both", peers: Sequence[str] | None = None
) -> list[Case]:
    """The cases of these ops.

    Args:
        direction: "fwd", "bwd" (forward and backward together) or "both".
        peers: only those whose names contain one of these, in any case of letters; None for all but the compiled,
            which take minutes to compile and are asked for by name.
    """
    found = [case for op in ops for case in _MODULES[op].cases(setting)]
    return [_with_peers(case, peers) for case in found if direction in ("both", case.direction)]


def _with_peers(case: Case, wanted: Sequence[str] | None) -> Case:
    if wanted is None:
        later = {COMPILED: "compiles for minutes: ask for it with --peer torch.compile"}
        return replace(case, peers={name: later.get(name, peer) for name, peer in case.peers.items()})
    chosen = {name: peer for name, peer in case.peers.items() if any(part.lower() in name.lower() for part in wanted)}
    return replace(case, peers=chosen)
