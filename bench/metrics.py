"""Our metrics beside independent implementations: `python -m bench.metrics [--write]`.

Prints, for each metric, the largest relative difference over drawn cases; --write puts the table into docs/metrics.md.
"""

import argparse
from pathlib import Path

from bench.metric_case import agreement
from bench.metrics_of_faces import FACES
from bench.metrics_of_pictures import PICTURES

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
BEGIN, END = "<!-- python -m bench.metrics: begin -->\n", "<!-- python -m bench.metrics: end -->\n"
COMPARISONS = [*PICTURES, *FACES]


def table() -> str:
    """The agreement of all, as Markdown."""
    lines = ["| metric | beside | cases | mean size | largest difference, of that |", "| --- | --- | --- | --- | --- |"]
    for comparison in COMPARISONS:
        cases, size, difference = agreement(comparison)
        lines.append(f"| {comparison.metric} | {comparison.other} | {cases} | {size:.4g} | {difference:.1e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table, or writes it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/metrics.md")
    written = table()
    if parser.parse_args().write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(before + BEGIN + written + END + after, encoding="utf-8")
    print(written, end="")


if __name__ == "__main__":
    main()
