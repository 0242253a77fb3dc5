"""nearest_code against distances + argmin in torch, and against libraries that search."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bench.case import BATCHES, Case, Inputs, Judge, Prepare, Setting, Thunk
from bench.peers import COMPILED, compile_here, package
from bench.work import Work, product_rate
from cbtalk.ops import NearestCode, nearest_code
from cbtalk.ops.examples import named

# K, D: the model's motion codes, a prefix of them, and its appearance codes; against the tokens of eight frames.
PAPER = [(1024, 32), (256, 32), (1024, 256)]
SWEEP = [*((1024 * B, 1024, 32) for B in BATCHES), (1021, 1000, 37)]  # N, K, D
FAR = 100.0
SHOWN = {(1024, 32): "distances + argmin", (1024, 256): "addmm + argmin"}


def sizes(setting: Setting) -> list[tuple[int, int, int]]:
    """N, K, D of each case."""
    return SWEEP if setting.sweep else [(1024 * max(8, setting.batch), *codes) for codes in PAPER]


def cases(setting: Setting) -> list[Case]:
    """Rows and codes about the origin, then far from it, where |e|^2 is large beside the differences that decide."""
    first = sizes(setting)[0]
    return [*(_case(setting, *size) for size in sizes(setting)), _far_case(setting, *first)]


def _case(setting: Setting, N: int, K: int, D: int) -> Case:
    shown = (SHOWN[K, D], "faiss IndexFlatL2") if (K, D) in SHOWN else ()
    return Case(
        "nearest_code", f"{N} x ({K}, {D})", "fwd",
        partial(inputs, setting, N, K, D),
        _search,
        _peers(setting.device),
        judge_indices,
        floor(N, K, D, setting.dtype, device=setting.device),
        shown,
    )  # fmt: skip


def _far_case(setting: Setting, N: int, K: int, D: int) -> Case:
    def far(generator: torch.Generator) -> Inputs:
        return tuple(x + FAR for x in inputs(setting, N, K, D, generator))

    at_origin = "cbtalk, the same at the origin"
    return Case(
        "nearest_code", f"{N} x ({K}, {D}), codes {FAR:g} from the origin", "fwd",
        far,
        _search,
        {at_origin: lambda z, e: _search(z - FAR, e - FAR), "addmm + argmin": lambda z, e: lambda: _addmm(z, e)},
        judge_indices,
        floor(N, K, D, setting.dtype, device=setting.device),
        (at_origin,),
    )  # fmt: skip


def floor(N: int, K: int, D: int, dtype: torch.dtype, *, passes: int = 1, device: str) -> Work:
    """One product of all rows with all codes; `passes` times the rows and the codes are read or written."""
    if device != "cuda":  # the C++ kernels compute in float32
        dtype = torch.float32
    rate, times = product_rate(dtype, device)
    return Work(float(dtype.itemsize) * passes * (N + K) * D + 12.0 * N, 2.0 * N * K * D * times, rate)


_OPS = torch.ops.cbtalk


@register_flop_formula([_OPS.nearest_code, _OPS.nearest_code_triton, _OPS.vector_quantize, _OPS.vector_quantize_triton])
def _operations(z: Any, codebook: Any, *_: Any, **__: Any) -> float:
    """z (..., N, D), codebook (..., K, D): shapes, as torch's counter gives them."""
    return 2 * math.prod(z) * codebook[-2]


def inputs(setting: Setting, N: int, K: int, D: int, generator: torch.Generator) -> Inputs:
    """Rows and codes about the origin."""
    return named("nearest_code").make(generator, setting.dtype, batch=1, tokens=N, codes=K, dim=D)


def _search(z: Tensor, codebook: Tensor) -> Thunk:
    return lambda: nearest_code(z, codebook)


def by_distances(z: Tensor, e: Tensor) -> Tensor:
    """The indices by all squared distances, as most models compute them."""
    return (z.square().sum(1, keepdim=True) + e.square().sum(1) - 2 * z @ e.T).argmin(1)


def _addmm(z: Tensor, e: Tensor) -> Tensor:
    return torch.addmm(e.square().sum(1), z, e.T, alpha=-2).argmin(1)


def _compiled(z: Tensor, e: Tensor) -> Thunk:
    search = compile_here(_addmm)
    return lambda: search(z, e)


def _peers(device: str) -> dict[str, Prepare | str]:
    keops = package("pykeops", "pykeops", _keops)
    quantizer = package("vector_quantize_pytorch", "vector-quantize-pytorch", _vector_quantize_pytorch)
    kmeans = package("flash_kmeans", "flash-kmeans", _flash_kmeans) if device == "cuda" else "it runs on GPUs only"
    return {
        "distances + argmin": lambda z, e: lambda: by_distances(z, e),
        "addmm + argmin": lambda z, e: lambda: _addmm(z, e),
        "cdist + argmin": lambda z, e: lambda: torch.cdist(z, e).argmin(1),
        COMPILED: _compiled,
        "faiss IndexFlatL2": package("faiss", "faiss-cpu", _faiss) if device == "cpu" else "faiss-cpu: on CPUs only",
        "pykeops": keops,
        "vector-quantize-pytorch": quantizer,
        "flash-kmeans": kmeans,
    }


def _faiss(z: Tensor, codebook: Tensor) -> Thunk:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.numpy())
    rows = z.numpy()
    return lambda: torch.from_numpy(index.search(rows, 1)[1][:, 0])


def _keops(z: Tensor, codebook: Tensor) -> Thunk:
    from pykeops.torch import LazyTensor

    rows, codes = LazyTensor(z[:, None, :].contiguous()), LazyTensor(codebook[None, :, :].contiguous())
    return lambda: ((rows - codes) ** 2).sum(-1).argmin(dim=1)[:, 0]


def _vector_quantize_pytorch(z: Tensor, codebook: Tensor) -> Thunk:
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(dim=codebook.shape[1], codebook_size=codebook.shape[0]).to(z.device).eval()
    quantizer.codebook = codebook
    return lambda: quantizer(z[None])[1][0]


def _flash_kmeans(z: Tensor, codebook: Tensor) -> Thunk:
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    rows, codes, squares = z[None], codebook[None], z.square().sum(1)[None]
    return lambda: euclid_assign_triton(rows, codes, squares)[0].long()


def judge_indices(given: Inputs) -> Judge:
    """By regret in float64: how much farther the chosen codes are than the nearest."""
    z, codebook = (x.double() for x in given)
    scores = codebook.square().sum(1) - 2 * z @ codebook.T
    length = codebook.norm(dim=1).amax()
    epsilon = torch.finfo(given[0].dtype).eps / 2
    bound = 4 * z.shape[1] ** 0.5 * epsilon * (length.square() + 2 * z.norm(dim=1) * length)

    def judge(result: object) -> str | None:
        indices = result.indices if isinstance(result, NearestCode) else result
        assert isinstance(indices, Tensor)
        regret = scores.gather(1, indices[:, None])[:, 0] - scores.amin(1)
        wrong = int((regret > bound).sum())
        return f"{wrong} of {len(indices)} codes are not the nearest" if wrong else None

    return judge
