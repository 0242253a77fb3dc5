"""The kernels that CUDA C++ launches for a case of bench/ops, in order, and what an iteration of their loops makes.

Each module gives `launches(direction, inputs) -> list[Launch]`; sizes of tiles and blocks are those of csrc.
"""
