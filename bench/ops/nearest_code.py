"""nearest_code and vector_quantize against distances + argmin in torch, and against FAISS."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from bench.case import Case, Inputs, Prepare, Thunk
from cbtalk.ops import NearestCode, Quantized, nearest_code, vector_quantize

# N, K, D: the tokens of eight frames against the model's motion codes, a prefix of them, and its appearance codes.
SIZES = [(8192, 1024, 32), (8192, 256, 32), (8192, 1024, 256)]


def cases() -> list[Case]:
    """Search alone, then quantisation with its gradients."""
    searches = [
        Case(f"nearest_code {N} x ({K}, {D})", partial(_inputs, N, K, D), _search, _search_peers(), _wrong_indices)
        for N, K, D in SIZES
    ]
    training = [
        Case(
            f"vector_quantize {N} x ({K}, {D}), forward + backward",
            partial(_inputs, N, K, D),
            _train,
            {"one-hot in torch": _train_one_hot},
            _wrong_gradients,
        )
        for N, K, D in SIZES
    ]
    return searches + training


def _inputs(N: int, K: int, D: int, generator: torch.Generator) -> Inputs:
    return torch.randn(N, D, generator=generator), torch.randn(K, D, generator=generator)


def _search(z: Tensor, codebook: Tensor) -> Thunk:
    return lambda: nearest_code(z, codebook)


def _search_peers() -> Mapping[str, Prepare | str]:
    return {
        "distances + argmin": lambda z, e: (
            lambda: (z.square().sum(1, keepdim=True) + e.square().sum(1) - 2 * z @ e.T).argmin(1)
        ),
        "addmm + argmin": lambda z, e: lambda: torch.addmm(e.square().sum(1), z, e.T, alpha=-2).argmin(1),
        "cdist + argmin": lambda z, e: lambda: torch.cdist(z, e).argmin(1),
        "faiss IndexFlatL2": _faiss(),
    }


def _faiss() -> Prepare | str:
    try:
        import faiss
    except ImportError:
        return "faiss-cpu is not installed"

    def prepare(z: Tensor, codebook: Tensor) -> Thunk:
        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatL2(codebook.shape[1])
        index.add(codebook.numpy())
        rows = z.numpy()
        return lambda: torch.from_numpy(index.search(rows, 1)[1][:, 0])

    return prepare


def _wrong_indices(inputs: Inputs, result: object) -> str | None:
    """By regret in float64: how much farther the chosen codes are than the nearest."""
    z, codebook = (x.double() for x in inputs)
    indices = result.indices if isinstance(result, NearestCode) else result
    assert isinstance(indices, Tensor)
    scores = codebook.square().sum(1) - 2 * z @ codebook.T
    regret = scores.gather(1, indices[:, None])[:, 0] - scores.amin(1)
    length = codebook.norm(dim=1).amax()
    bound = 4 * z.shape[1] ** 0.5 * 2**-24 * (length.square() + 2 * z.norm(dim=1) * length)
    wrong = int((regret > bound).sum())
    return f"{wrong} of {len(indices)} codes are not the nearest" if wrong else None


def _train(z: Tensor, codebook: Tensor) -> Thunk:
    return lambda: _step(z, codebook)


def _step(z: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    leaves = z.detach().requires_grad_(), codebook.detach().requires_grad_()
    return _gradients(vector_quantize(*leaves), *leaves)


def _train_one_hot(z: Tensor, codebook: Tensor) -> Thunk:
    """As most models write it: all distances, one-hot codes, a product with them."""

    def step() -> tuple[Tensor, ...]:
        rows, codes = z.detach().requires_grad_(), codebook.detach().requires_grad_()
        distances = rows.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * rows @ codes.T
        indices = distances.argmin(1)
        one_hot = torch.zeros(len(rows), len(codes)).scatter_(1, indices[:, None], 1)
        chosen = one_hot @ codes
        loss = 0.25 * (chosen.detach() - rows).square().mean() + (chosen - rows.detach()).square().mean()
        straight = rows + (chosen - rows).detach()
        return _gradients(Quantized(straight, loss, indices, one_hot.sum(0).long()), rows, codes)

    return step


def _gradients(found: Quantized, z: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    # The gradient that arrives at the codes is as large as they are.
    arriving = found.codes.detach()
    return (found.loss.detach(), *torch.autograd.grad((found.codes, found.loss), (z, codebook), (arriving, None)))


def _wrong_gradients(inputs: Inputs, result: object) -> str | None:
    exact = _step(*(x.double() for x in inputs))
    assert isinstance(result, tuple)
    for name, ours, right in zip(("loss", "grad_z", "grad_codebook"), result, exact, strict=True):
        error = ((ours.double() - right).norm() / right.norm()).item()
        if not error < 1e-6:
            return f"{name} is off by {error:.1e}"
    return None
