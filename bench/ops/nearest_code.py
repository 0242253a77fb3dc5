"""nearest_code and vector_quantize against distances + argmin in torch, and against libraries that search."""

from functools import partial

import torch
from torch import Tensor

from bench import work
from bench.case import BATCHES, Case, Inputs, Judge, Prepare, Setting, Thunk, judge_by
from bench.peers import COMPILED, compile_here, package
from cbtalk.ops import NearestCode, nearest_code, vector_quantize

# N, K, D: the tokens of eight frames against the model's motion codes, a prefix of them, and its appearance codes.
PAPER = [(8192, 1024, 32), (8192, 256, 32), (8192, 1024, 256)]
BETA = 0.25  # of vector_quantize by default
SWEEP = [*((1024 * B, 1024, 32) for B in BATCHES), (1021, 1000, 37)]


def cases(setting: Setting) -> list[Case]:
    """Search alone, then quantisation with its gradients."""
    sizes = SWEEP if setting.sweep else PAPER
    return [make(setting, *size) for make in (_search_case, _train_case) for size in sizes]


def _search_case(setting: Setting, N: int, K: int, D: int) -> Case:
    floor = work.nearest_code(N, K, D, device=setting.device)
    inputs = partial(_inputs, setting, N, K, D)
    peers = _search_peers(setting.device)
    return Case("nearest_code", f"{N} x ({K}, {D})", "fwd", inputs, _search, peers, _judge_indices, floor)


def _train_case(setting: Setting, N: int, K: int, D: int) -> Case:
    # rows, codes, the chosen codes, what arrives there and both gradients: three times the rows, two times the codes
    floor = work.nearest_code(N, K, D, passes=2, device=setting.device)
    inputs = partial(_inputs, setting, N, K, D)
    peers = {"one-hot in torch": _train_one_hot}
    return Case("vector_quantize", f"{N} x ({K}, {D})", "bwd", inputs, _train, peers, _judge_gradients, floor)


def _inputs(setting: Setting, N: int, K: int, D: int, generator: torch.Generator) -> Inputs:
    z, codebook = (torch.randn(rows, D, generator=generator) for rows in (N, K))
    return z.to(setting.device, setting.dtype), codebook.to(setting.device, setting.dtype)


def _search(z: Tensor, codebook: Tensor) -> Thunk:
    return lambda: nearest_code(z, codebook)


def _distances(z: Tensor, e: Tensor) -> Tensor:
    return (z.square().sum(1, keepdim=True) + e.square().sum(1) - 2 * z @ e.T).argmin(1)


def _addmm(z: Tensor, e: Tensor) -> Tensor:
    return torch.addmm(e.square().sum(1), z, e.T, alpha=-2).argmin(1)


def _compiled(z: Tensor, e: Tensor) -> Thunk:
    search = compile_here(_addmm)
    return lambda: search(z, e)


def _search_peers(device: str) -> dict[str, Prepare | str]:
    keops = package("pykeops", "pykeops", _keops)
    quantizer = package("vector_quantize_pytorch", "vector-quantize-pytorch", _vector_quantize_pytorch)
    kmeans = package("flash_kmeans", "flash-kmeans", _flash_kmeans) if device == "cuda" else "it runs on GPUs only"
    return {
        "distances + argmin": lambda z, e: lambda: _distances(z, e),
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


def _judge_indices(inputs: Inputs) -> Judge:
    """By regret in float64: how much farther the chosen codes are than the nearest."""
    z, codebook = (x.double() for x in inputs)
    scores = codebook.square().sum(1) - 2 * z @ codebook.T
    length = codebook.norm(dim=1).amax()
    epsilon = torch.finfo(inputs[0].dtype).eps / 2
    bound = 4 * z.shape[1] ** 0.5 * epsilon * (length.square() + 2 * z.norm(dim=1) * length)

    def judge(result: object) -> str | None:
        indices = result.indices if isinstance(result, NearestCode) else result
        assert isinstance(indices, Tensor)
        regret = scores.gather(1, indices[:, None])[:, 0] - scores.amin(1)
        wrong = int((regret > bound).sum())
        return f"{wrong} of {len(indices)} codes are not the nearest" if wrong else None

    return judge


def _train(z: Tensor, codebook: Tensor) -> Thunk:
    def step() -> tuple[Tensor, ...]:
        leaves = z.detach().requires_grad_(), codebook.detach().requires_grad_()
        found = vector_quantize(*leaves)
        return _gradients(found.codes, found.loss, found.indices, *leaves)

    return step


def _train_one_hot(z: Tensor, codebook: Tensor) -> Thunk:
    """As most models write it, the released one among them: all distances, one-hot codes, a product with them."""

    def step() -> tuple[Tensor, ...]:
        rows, codes = z.detach().requires_grad_(), codebook.detach().requires_grad_()
        indices = _distances(rows, codes)
        one_hot = torch.zeros(len(rows), len(codes), device=z.device, dtype=z.dtype).scatter_(1, indices[:, None], 1)
        one_hot.sum(0)  # the counts
        return _gradients(*_straight_through(rows, one_hot @ codes), indices, rows, codes)

    return step


def _straight_through(rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The codes with the gradient to the rows, and the loss."""
    loss = BETA * (chosen.detach() - rows).square().mean() + (chosen - rows.detach()).square().mean()
    return rows + (chosen - rows).detach(), loss


def _gradients(codes: Tensor, loss: Tensor, indices: Tensor, z: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    """(indices, loss, both gradients); what arrives at the codes is as large as they are."""
    return indices, loss.detach(), *torch.autograd.grad((codes, loss), (z, codebook), (codes.detach(), None))


def _judge_gradients(inputs: Inputs) -> Judge:
    """The codes by their regret, the rest by what float64 makes of the same codes."""
    judge_indices = _judge_indices(inputs)
    # In 16 bits torch, which computes it there, adds the rows of a code up in 16 bits.
    scales = (1, 1, 1) if inputs[0].dtype == torch.float32 else (1, 1, 30)

    def judge(result: object) -> str | None:
        assert isinstance(result, tuple)
        indices, *rest = result
        z, codebook = (x.double().requires_grad_() for x in inputs)
        exact = _gradients(*_straight_through(z, codebook[indices]), indices, z, codebook)
        return judge_indices(indices) or judge_by(exact[1:], inputs[0].dtype, scales=scales)(rest)

    return judge
