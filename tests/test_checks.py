import pytest
import torch

from tests.helpers.checks import assert_error_budget, assert_nearest


def budget_arguments() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    exact = torch.randn(64, 32, dtype=torch.float64) + 2
    reference = exact.float() * (1 + 2**-22)
    return reference.clone(), reference, exact


def test_budget_accepts_a_rounding_where_the_reference_is_exact() -> None:
    exact = torch.rand(1000, dtype=torch.float64) + 1
    reference = exact.float()
    assert_error_budget(reference, reference, exact)
    assert_error_budget(exact.float(), exact.float(), exact.float().double())


def test_budget_refuses_one_wrong_element() -> None:
    actual, reference, exact = budget_arguments()
    assert_error_budget(actual, reference, exact)
    actual[17, 3] += 1e-4
    with pytest.raises(AssertionError, match="largest"):
        assert_error_budget(actual, reference, exact)


def test_budget_refuses_a_small_bias_everywhere() -> None:
    actual, reference, exact = budget_arguments()
    reference[0, 0] += 1e-2
    with pytest.raises(AssertionError, match="mean"):
        assert_error_budget(actual * (1 + 1e-5), reference, exact)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_budget_refuses_what_is_not_finite_and_should_be(wrong: float) -> None:
    actual, reference, exact = budget_arguments()
    actual[0, 0] = wrong
    with pytest.raises(AssertionError):
        assert_error_budget(actual, reference, exact)


def test_budget_demands_nan_where_the_exact_result_is_nan() -> None:
    actual, reference, exact = budget_arguments()
    exact[5, 5] = float("nan")
    with pytest.raises(AssertionError):
        assert_error_budget(actual, reference, exact)
    actual[5, 5] = float("nan")
    assert_error_budget(actual, reference, exact)


def test_budget_refuses_another_dtype_or_shape() -> None:
    actual, reference, exact = budget_arguments()
    with pytest.raises(AssertionError, match="dtype"):
        assert_error_budget(actual.double(), reference, exact)
    with pytest.raises(AssertionError, match="shapes"):
        assert_error_budget(actual[:1], reference, exact)


def test_nearest_refuses_one_wrong_code_and_accepts_a_tie() -> None:
    z, codebook = torch.randn(50, 8), torch.randn(20, 8)
    codebook[7] = codebook[3]
    indices = torch.cdist(z.double(), codebook.double()).argmin(1)
    assert_nearest(indices, z, codebook)
    assert_nearest(torch.where(indices == 3, 7, indices), z, codebook)
    wrong = indices.clone()
    wrong[11] = (wrong[11] + 1) % 3 + 10
    with pytest.raises(AssertionError):
        assert_nearest(wrong, z, codebook)
