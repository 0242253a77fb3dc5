"""Every op once on every GPU backend, at small sizes: what runs at all, and something short for the sanitizers.

python -m bench.gpu_smoke [--backend cuda]
"""

import argparse
import sys

import torch

from bench.machine import header
from cbtalk import _native, _triton
from cbtalk.doctor import GPU_BACKENDS, examine
from cbtalk.ops.examples import ON_GPU

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def main() -> int:
    """1 where an op is wrong or fails; a backend that is off says why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=GPU_BACKENDS, action="append", help="only this one; may be repeated")
    backends = parser.parse_args().backend or GPU_BACKENDS
    if not torch.cuda.is_available():
        sys.exit("bench.gpu_smoke needs a CUDA GPU; cbtalk doctor examines the CPU")
    print("\n".join(f"{name}: {fact}" for name, fact in header("cuda").items()))
    print(f"cuda: {_native.why_not_cuda() or 'on'}; triton: {_triton.why_not_triton() or 'on'}")
    verdicts = []
    for example in ON_GPU:
        for dtype in DTYPES:
            inputs = tuple(tensor.to(dtype) for tensor in example.inputs("cuda"))
            for backend in backends:
                verdicts.append(examine(example, inputs, backend))
                print(f"{example.name:20} {dtype!s:15} {backend:8} {verdicts[-1]}", flush=True)
    right = sum(verdict == "ok" for verdict in verdicts)
    off = sum(verdict.startswith("off") for verdict in verdicts)
    print(f"{right} right, {off} off, {len(verdicts) - right - off} wrong")
    return int(right + off < len(verdicts))


if __name__ == "__main__":
    sys.exit(main())
