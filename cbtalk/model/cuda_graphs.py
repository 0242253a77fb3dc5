"""Functions of tensors as CUDA graphs: all that one queues on a GPU is recorded once, and then queued by one call."""

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

R = TypeVar("R")

_WARM_UPS = 3  # as torch advises


def captured(function: Callable[[], R], device: torch.device, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, R]:
    """A graph of what a function queues on a device, and the results that a replay writes anew.

    The function is called a few times before, on the stream of the capture, so that nothing is compiled, chosen or
    remembered in the capture itself. Other threads may use the device meanwhile. pool: memory, of another graph.
    """
    with torch.cuda.device(device):
        work, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(work)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(side):  # which is left also where the end of a capture fails, unlike that of `graph`
            for _ in range(_WARM_UPS):
                function()
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                results = function()
        work.wait_stream(side)
    return graph, results


class CudaGraphs(Generic[R]):
    """A function of tensors on a GPU that is replayed as a graph, one for each set of shapes, strides and dtypes.

    Arguments and results are tensors, or tuples of them to any depth. The first call with some shapes is plain, the
    second captures: what comes once, as the incomplete batch at the end of a video, is never captured. Results are
    copies, so that the graphs can share one pool of memory. What else the function reads, such as weights, must
    neither move nor change, and no argument may be changed in place.

    failure: the reason why a graph could not be captured, after which all calls are plain; None where all could.
    """

    def __init__(self, function: Callable[..., R], capture: Callable[..., tuple[Any, R]] = captured) -> None:
        self._function, self._capture = function, capture
        self._graphs: dict[object, _Graph[R] | None] = {}  # None: met once
        self._pool: Any = None
        self.failure: str | None = None

    def __call__(self, *arguments: Any) -> R:
        """The results of the function."""
        tensors, form = tree_flatten(arguments)
        key = form, tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors)
        if self.failure is not None or key not in self._graphs:
            self._graphs[key] = None
            return self._function(*arguments)
        graph = self._graphs[key]
        if graph is None:
            try:
                graph = self._graphs[key] = _Graph(self._function, tensors, form, self._capture, self._pool)
            except RuntimeError as failure:
                self.failure = str(failure).partition("\n")[0]
                return self._function(*arguments)
            self._pool = graph.pool
        return graph(tensors)


class _Graph(Generic[R]):
    """A captured function, with the tensors that it reads and writes."""

    def __init__(
        self,
        function: Callable[..., R],
        tensors: list[Tensor],
        form: TreeSpec,
        capture: Callable[..., tuple[Any, R]],
        pool: Any,
    ) -> None:
        self._inputs = [tensor.clone() for tensor in tensors]
        self._given = [weakref.ref(tensor) for tensor in tensors]  # what the inputs are copies of
        arguments = tree_unflatten(self._inputs, form)
        self._graph, self._results = capture(lambda: function(*arguments), tensors[0].device, pool)
        self.pool = self._graph.pool()

    def __call__(self, tensors: list[Tensor]) -> R:
        for number, tensor in enumerate(tensors):
            if self._given[number]() is not tensor:  # a source stays the same from batch to batch
                self._inputs[number].copy_(tensor)
                self._given[number] = weakref.ref(tensor)
        self._graph.replay()
        return tree_map(torch.clone, self._results)
