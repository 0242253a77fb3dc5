"""codebook_attention and self_attention: csrc/cuda/codebook_attention*.cu, cut as codebook_attention_params.h says."""

from torch import Tensor

from bench.launches.launch import WARP, Launch, Loop, bytes_of, dtype_name
from cbtalk.ops.examples import HEADS

_PAIR = "query and key of a head"
_FILE = "codebook_attention"


def launches(direction: str, inputs: tuple[Tensor, ...]) -> list[Launch]:
    """With as many queries as share each key that is read: the bench has no fewer."""
    query, key, _ = inputs
    narrow = _head(query) < 16
    found = [(_narrow if narrow else _wide)(*inputs)]
    if direction == "bwd":
        found += _narrow_backward(*inputs) if narrow else _wide_backward(*inputs)
        if _chunks(query, key) > 1:
            found.append(_add_chunks(query, key))
    return found


def _head(query: Tensor) -> int:
    return query.shape[-1] // HEADS


def _queries(query: Tensor) -> int:
    """Of all heads."""
    return query.shape[0] * query.shape[1] * HEADS


def _pairs(query: Tensor, key: Tensor) -> float:
    return float(_queries(query)) * key.shape[-2]


def _chunks(query: Tensor, key: Tensor) -> int:
    """Into which the rows are divided for the gradients of the keys: attention_chunks of attention_math.h."""
    columns, keys, rows = query.shape[-1], key.shape[-2], query.shape[0] * query.shape[1]
    memory = (4 * columns * query.element_size() + 8 * HEADS) * rows + 4 * columns * query.element_size() * keys
    affordable = memory // 10 // (8 * columns * keys)
    wanted = 256 // (-(-keys // 64) * HEADS)
    return max(min(wanted, rows // 256, affordable), 1)


def _narrow(query: Tensor, key: Tensor, value: Tensor) -> Launch:
    """A warp has 32 queries; an iteration is 64 keys: of a lane 4 rows, 16 weights of each and a sum that fades."""
    keys = key.shape[-2]
    return Launch(
        f"{_FILE}: attention_narrow_fwd_kernel<{dtype_name(query.dtype)}, {_head(query)}, 2>",
        bytes_of(query, query, key, value), _PAIR, _pairs(query, key), _queries(query) / 32,
        (Loop({"MUFU.EX2": 68}, keys / 64),),
        (_staged(keys),),
    )  # fmt: skip


def _narrow_backward(query: Tensor, key: Tensor, value: Tensor) -> list[Launch]:
    """A warp has 32 queries, and 64 keys an iteration; then 32 keys, half of the rows, and 16 of these an iteration."""
    keys, rows = key.shape[-2], _rows_of_a_chunk(query, key)
    warps = _queries(query) / 32, keys / 64 * HEADS * _chunks(query, key) * 4
    of_queries, of_keys = Loop({"MUFU.EX2": 64}, keys / 64), Loop({"MUFU.EX2": 16}, rows / 2 / 16)
    staged = Loop({"LDG": 13, "STS": 4}, rows / 128)
    return [
        _backward("narrow_query", ", 2", (query, key, value), warps[0], (of_queries,), _staged(keys)),
        _backward("narrow_key", "", (query, key, value), warps[1], (of_keys,), staged),
    ]


def _staged(keys: int) -> Loop:
    """Keys that the 128 threads of a block bring into shared memory, one each an iteration."""
    return Loop({"LDG": 2, "STS": 3}, keys / 128)


def _wide(query: Tensor, key: Tensor, value: Tensor) -> Launch:
    """A warp has 32 queries; an iteration is 16 keys in float32, of six products each, and 32 in halves."""
    keys, head, float32 = key.shape[-2], _head(query), query.element_size() == 4
    group = 16 if float32 else 32
    steps = 2 * (group // 8) * 2 * (head // 16)  # products of the scores and of the values
    return Launch(
        f"{_FILE}_wide: attention_wide_fwd_kernel<{dtype_name(query.dtype)}, {head}, 2>",
        bytes_of(query, query, key, value), _PAIR, _pairs(query, key), _queries(query) / 32,
        (Loop({"HMMA": steps * (6 if float32 else 1)}, keys / group),),
        (Loop({"STS": 3}, keys * head * query.element_size() / 16 / 128),),
    )  # fmt: skip


def _wide_backward(query: Tensor, key: Tensor, value: Tensor) -> list[Launch]:
    """A warp has 16 queries in float32, 32 in halves, and 16 keys an iteration; then the same with both exchanged."""
    keys, head, float32 = key.shape[-2], _head(query), query.element_size() == 4
    tiles, each = (1, 6) if float32 else (2, 1)
    rows, row_groups = _rows_of_a_chunk(query, key), 8 // (64 // (16 * tiles))  # of the 8 warps of a block of 64 keys
    product = tiles * 2 * (head // 16) * each  # of 16 rows by 16 keys
    of_queries = Loop({"HMMA": 3 * product}, keys / 16)
    of_keys = Loop({"HMMA": 4 * product}, rows / 16 / row_groups)
    vectors = head * query.element_size() / 16  # of a row, that a thread reads at once
    staged = Loop({"STS": 3}, keys * vectors / 128), Loop({"MUFU.RCP": 1, "STS": 5}, rows * vectors / 256)
    warps = _queries(query) / (16 * tiles), keys / 64 * HEADS * _chunks(query, key) * 8
    return [
        _backward("wide_query", f", {tiles}", (query, key, value), warps[0], (of_queries,), staged[0]),
        _backward("wide_key", f", {tiles}", (query, key, value), warps[1], (of_keys,), staged[1]),
    ]


def _rows_of_a_chunk(query: Tensor, key: Tensor) -> float:
    return query.shape[0] * query.shape[1] / _chunks(query, key)


def _backward(
    kind: str, tiles: str, inputs: tuple[Tensor, ...], warps: float, hot: tuple[Loop, ...], staged: Loop
) -> Launch:
    """The kernel that owns queries, or keys; both take the maximum, the total and delta of each row."""
    query, key, value = inputs
    file = f"{_FILE}_wide_backward" if kind.startswith("wide") else f"{_FILE}_backward"
    images, codes = (4, 1) if kind.endswith("query") else (2, 2)  # read and written, as large as the queries, the keys
    return Launch(
        f"{file}: attention_{kind}_bwd_kernel<{dtype_name(query.dtype)}, {_head(query)}{tiles}>",
        images * bytes_of(query) + codes * bytes_of(key, value) + 12.0 * _queries(query),
        _PAIR, _pairs(query, key), warps, hot, (staged,),
    )  # fmt: skip


def _add_chunks(query: Tensor, key: Tensor) -> Launch:
    """A lane adds up an element of both gradients, a chunk an iteration."""
    chunks = _chunks(query, key)
    return Launch(
        f"{_FILE}_backward: attention_chunks_bwd_kernel<{dtype_name(query.dtype)}>",
        8.0 * chunks * key.numel() + 2 * bytes_of(key),
        "element of a chunk", chunks * key.numel(), key.numel() / WARP,
        (Loop({"LDG": 2}, chunks),),
    )  # fmt: skip
