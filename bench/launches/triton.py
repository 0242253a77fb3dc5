"""The launches of the Triton kernels: recorded from their launchers, so that tiles and numbers of programs are theirs.

A kernel of kernels/*.py has a loop or two; said here is how often a program goes round, and what it makes.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from bench.gpu_ways import ALL
from bench.launches.flow_warp import readers_across
from bench.launches.launch import Launch, Loop, bytes_of
from bench.launches.triton_calls import calls
from bench.triton_code import Call

_FLOAT = 4
Arguments = dict[str, Any]


class Work(NamedTuple):
    """The items of a kernel, how many, and its loops, the first of which makes them; or its straight way."""

    item: str
    items: float
    loops: tuple[Loop, ...]
    straight: bool = False


def launches(op: str, direction: str, inputs: tuple[Tensor, ...]) -> list[Launch]:
    """With the fills and roundings by torch that have an image's size; not its sort, as for CUDA C++."""
    found = [_launch(call) for call in calls(op, direction, inputs)]
    if op == "flow_warp" and direction == "bwd":
        gradient = float(_FLOAT * inputs[0].numel())
        found.append(Launch("gradient filled with zeros", gradient))
        if inputs[0].element_size() != _FLOAT:
            found.append(Launch("gradient rounded", gradient + bytes_of(inputs[0])))
    return found


def _launch(call: Call) -> Launch:
    arguments = dict(call.arguments)
    work = _WORK[call.function.__name__](arguments)
    moved = [*call.tensors, *(arguments[name] for name in _READ_AND_WRITTEN if name in arguments)]
    if call.function.__name__ == "sum_chunks_kernel":  # few chunks belong to one code: no row is read
        moved = [arguments[name] for name in ("keys", "code_begin", "code_end")]
    return Launch(
        call.name, bytes_of(*moved), work.item, work.items, call.programs * call.warps,
        work.loops[:1], work.loops[1:], straight=work.straight, build=call,
    )  # fmt: skip


_READ_AND_WRITTEN = ("grad_feature",)  # by additions to memory


def _round(mark: str, iterations: float) -> tuple[Loop, ...]:
    """The innermost loop with the mark."""
    return (Loop({mark: ALL}, iterations),)


def _straight(item: str, items: float) -> Work:
    """The shortest way that stores something; masks are predicates, not ways of their own."""
    return Work(item, items, (Loop({"STG": 1}, 1),), straight=True)


def _over(total: float, tile: int) -> int:
    return math.ceil(total / tile)


def _tiles(mark: str) -> Callable[[Arguments], Work]:
    """group_norm's passes over the chunks of an image."""
    return lambda a: Work("element", a["x"].numel(), _round(mark, a["TILES"]))


def _slab(a: Arguments) -> Work:
    return _straight("element", a["x"].numel())


def _join(a: Arguments) -> Work:
    marks = ("DFMA", "DADD") if "eps" in a else ("DADD",)  # moments are joined in two rounds
    steps = _over(a["chunks"], a["TILE_K"])
    return Work("chunk of a channel", a["partial"].numel() / 2, tuple(Loop({mark: ALL}, steps) for mark in marks))


def _parameters(a: Arguments) -> Work:
    return Work("channel of an image", a["sums"].numel() / 2, _round("DADD", _over(a["batch"], a["TILE_B"])))


def _warp(mark: str, image: str) -> Callable[[Arguments], Work]:
    def work(a: Arguments) -> Work:
        steps = _over(a["C"], a["TILE_C"])
        return Work("element", a[image].numel(), _round(mark, steps), straight=steps == 1)  # one round is no loop

    return work


def _warp_map(a: Arguments) -> Work:
    across = readers_across(a["Wo"], a["w"])
    columns = _over(across, a["SPAN"])
    loops = Loop({"LDG": ALL}, columns * across), Loop({"LDG": ALL}, columns, outer=1)
    return Work("pixel that may read an element", across**2 * a["grad"].numel(), loops)


def _attention_rows(a: Arguments) -> Work:
    pairs = float(a["all_rows"]) * a["heads"] * a["keys"]
    return Work("query and key of a head", pairs, _round("MUFU.EX2", _over(a["keys"], a["BLOCK_K"])))


def _attention_keys(a: Arguments) -> Work:
    pairs = float(a["all_rows"]) * a["heads"] * a["keys"]
    return Work("query and key of a head", pairs, _round("MUFU.EX2", _over(a["chunk_rows"], a["BLOCK_T"])))


def _attention_chunks(a: Arguments) -> Work:
    return Work("element of a chunk", float(a["chunks"] * a["size"]), (Loop({"LDG": 2}, a["chunks"]),))


def _norms(a: Arguments) -> Work:
    """Without the hash table of the codes, which few warps enter."""
    return Work("element of the codebook", a["codebook"].numel(), _round("FFMA", _over(a["D"], a["BLOCK_D"])))


def _search(a: Arguments) -> Work:
    panels = _over(a["K"], a["BLOCK_K"])
    product = Loop({"HGMMA": ALL}, panels * _over(a["D"], a["BLOCK_D"]))
    comparison = () if a["WHOLE"] else (Loop({"HGMMA": ALL}, panels, outer=1),)
    return Work("row and code", float(a["N"]) * a["K"], (product, *comparison))


def _winners(a: Arguments) -> Work:
    """None of them in doubt."""
    return Work("row", a["N"], _round("FFMA", _over(a["D"], a["BLOCK_D"])))


def _loss(a: Arguments) -> Work:
    return Work("program of the winners", a["count"], _round("DADD", _over(a["count"], a["BLOCK"])))


def _rows(item: str) -> Callable[[Arguments], Work]:
    return lambda a: _straight(item, a["N"] * (a["D"] if item == "element" else 1))


def _sum_codes(a: Arguments) -> Work:
    """The rows of a code begin anywhere among those that are summed together: one round more."""
    return Work("element", a["N"] * a["D"], (Loop({"LDG.E.64": 1}, a["N"] / a["K"] / a["BLOCK_N"] + 1),))


_WORK: dict[str, Callable[[Arguments], Work]] = {
    "group_norm_moments_fwd_kernel": _tiles("LDG"),
    "group_norm_join_fwd_kernel": _join,
    "group_norm_apply_fwd_kernel": _tiles("STG"),
    "group_norm_fwd_kernel": _slab,
    "group_norm_sums_bwd_kernel": _tiles("LDG"),
    "group_norm_join_bwd_kernel": _join,
    "group_norm_input_bwd_kernel": _tiles("STG"),
    "group_norm_bwd_kernel": _slab,
    "group_norm_parameters_bwd_kernel": _parameters,
    "flow_warp_fwd_kernel": _warp("STG", "output"),
    "flow_warp_bwd_kernel": _warp("RED", "grad_output"),
    "flow_warp_bwd_map_kernel": _warp_map,
    "narrow_fwd_kernel": _attention_rows,
    "wide_fwd_kernel": _attention_rows,
    "narrow_query_bwd_kernel": _attention_rows,
    "wide_query_bwd_kernel": _attention_rows,
    "narrow_key_bwd_kernel": _attention_keys,
    "wide_key_bwd_kernel": _attention_keys,
    "add_chunks_bwd_kernel": _attention_chunks,
    "code_norms_kernel": _norms,
    "nearest_code_fwd_kernel": _search,
    "nearest_code_winners_kernel": _winners,
    "quantization_loss_kernel": _loss,
    "nearest_code_bwd_rows_kernel": _rows("element"),
    "code_keys_kernel": _rows("row"),
    "sum_chunks_kernel": _rows("row"),
    "sum_codes_kernel": _sum_codes,
}
