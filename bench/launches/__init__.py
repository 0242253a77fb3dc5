"""The kernels that are launched for a case of bench/ops, in order, and what an iteration of their loops makes.

Each module named after an op gives `launches(direction, inputs) -> list[Launch]` in CUDA C++; sizes of tiles and blocks
are those of csrc. Those of Triton are recorded from the launchers of kernels (`triton`).
"""
