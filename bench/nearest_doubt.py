"""Rows that nearest_code on a GPU, in CUDA C++, would search again in float64, without a GPU.

python -m bench.nearest_doubt [--batch 16] [--constant 84]

A table in Markdown, a case of `bench.gpu` a row: the share of rows whose two nearest codes differ by less than the
bound of csrc/include/cbtalk/cuda/nearest_code_doubt.h, the scores taken as exact. `--constant` takes the place
of the constant there.
"""

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor

from bench.case import Setting
from bench.cases import cases

HEADER = Path(__file__).resolve().parents[1] / "csrc/include/cbtalk/cuda/nearest_code_doubt.h"

_BOUND = re.compile(
    r"0x1p-23f \* \(([\d.]+)f \* static_cast<float>\(D\) \+ ([\d.]+)f\) \* e_length \* \(z_length \+ 0\.125f"
)


def bound_of_header() -> tuple[float, float]:
    """The growth of the bound with each column, and its constant."""
    found = _BOUND.search(HEADER.read_text())
    assert found is not None, f"{HEADER} has another bound"
    return float(found[1]), float(found[2])


def share_in_doubt(z: Tensor, codebook: Tensor, per_column: float, constant: float) -> float:
    """The share of the rows of z (N, D) whose nearest of the codes (K, D) the bound leaves open."""
    rows, codes = z.double(), codebook.double()
    two = (codes.square().sum(1) - 2 * rows @ codes.T).topk(2, dim=1, largest=False).values
    longest = codes.norm(dim=1).amax()
    gap = 2.0**-23 * (per_column * z.shape[1] + constant) * longest * (rows.norm(dim=1) + longest / 8)
    return float((two[:, 1] - two[:, 0] <= gap).double().mean())


def main() -> None:
    """The command line."""
    per_column, constant = bound_of_header()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="(16)")
    parser.add_argument("--constant", type=float, default=constant, help="(that of the header)")
    parser.add_argument("--seeds", type=int, default=4, help="inputs of each case (4)")
    arguments = parser.parse_args()
    print("| rows x codes | rows in doubt |\n| --- | --- |")
    for case in cases(Setting(batch=arguments.batch), ["nearest_code"]):
        total = 0.0
        for seed in range(arguments.seeds):
            z, codebook = case.make_inputs(torch.Generator().manual_seed(seed))
            total += share_in_doubt(z, codebook, per_column, arguments.constant)
        print(f"| {case.shape} | {100 * total / arguments.seeds:.3f} % |")


if __name__ == "__main__":
    main()
