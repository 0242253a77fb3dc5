"""Each op once on every GPU backend, forward and with gradients, at its largest size: something for a profiler.

ncu --profile-from-start off ... python -m bench.gpu_once
"""

import sys

import torch

from bench.case import Setting
from bench.cases import cases
from bench.gpu import BATCH
from bench.measure import with_backend
from cbtalk.doctor import GPU_BACKENDS
from cbtalk.errors import BackendError
from cbtalk.ops.examples import ON_GPU


def main() -> int:
    """1 where nothing ran."""
    if not torch.cuda.is_available():
        sys.exit("bench.gpu_once needs a CUDA GPU")
    found = cases(Setting("cuda", torch.float32, BATCH), [example.name for example in ON_GPU], peers=[])
    first = {(case.op, case.direction): case for case in reversed(found)}  # of each op the first case listed
    ran = 0
    for case in first.values():
        for backend in GPU_BACKENDS:
            thunk = with_backend(case.ours(*case.make_inputs(torch.Generator("cuda").manual_seed(0))), backend)
            try:
                thunk()  # compiled and loaded before the profiler looks
            except BackendError as reason:
                print(f"{case.name}: {backend} off: {reason}")
                continue
            torch.cuda.synchronize()
            print(f"{case.name}: {backend}", flush=True)
            torch.cuda.profiler.start()
            thunk()
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()
            ran += 1
    return int(ran == 0)


if __name__ == "__main__":
    sys.exit(main())
