"""Each metric says what an implementation that is not ours says, to rounding."""

from collections.abc import Iterable

import pytest

from bench.metric_case import Comparison, agreement
from bench.metrics import COMPARISONS, PAGE, table


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: f"{comparison.metric} by {comparison.other}")
def test_it_agrees(comparison: Comparison) -> None:
    found = agreement(comparison)
    assert found.size > 0 and found.difference < comparison.most


def test_the_page_has_a_row_for_each() -> None:
    def rows(lines: Iterable[str]) -> list[list[str]]:
        return [line.split(" | ")[:3] for line in lines if line.startswith("| ")]

    written = PAGE.read_text(encoding="utf-8").partition("<!-- python -m bench.metrics: begin -->")[2]
    assert rows(written.partition("<!--")[0].splitlines()) == rows(table())


def test_a_wrong_metric_would_be_seen() -> None:
    comparison = COMPARISONS[0]._replace(cases=lambda: iter([(1.0, 1.0), (1.0, 1.0001)]))
    assert agreement(comparison).difference > comparison.most
