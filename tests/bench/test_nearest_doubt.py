import torch

from bench.nearest_doubt import bound_of_header, share_in_doubt


def test_rows_between_two_codes_are_in_doubt() -> None:
    codebook = torch.eye(32)[:2]
    z = torch.zeros(4, 32)
    z[0, 0], z[1, 0], z[2, 1] = 1.0, 1e-7, 1e-4
    per_column, constant = bound_of_header()
    assert share_in_doubt(z, codebook, per_column, constant) == 0.5
    assert share_in_doubt(z, codebook, per_column, 1e-3 * constant) == 0.25
    assert share_in_doubt(z, codebook, per_column, 1e3 * constant) == 0.75
