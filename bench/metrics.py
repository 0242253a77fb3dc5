"""Our metrics beside independent implementations: `python -m bench.metrics [--write]`.

Prints, for each metric, the largest relative difference over drawn cases; --write puts the table into docs/metrics.md.
"""

import argparse
from pathlib import Path

from bench.generated import write_part
from bench.metric_case import agreement
from bench.metrics_of_faces import FACES
from bench.metrics_of_images import IMAGES

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
COMPARISONS = [*IMAGES, *FACES]


def table() -> list[str]:
    """The agreement of all, as lines of Markdown."""
    lines = ["| metric | beside | cases | mean size | largest difference, of that |", "| --- | --- | --- | --- | --- |"]
    for comparison in COMPARISONS:
        cases, size, difference = agreement(comparison)
        lines.append(f"| {comparison.metric} | {comparison.other} | {cases} | {size:.4g} | {difference:.1e} |")
    return lines


def main() -> None:
    """Prints the table, or writes it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/metrics.md")
    written = table()
    if parser.parse_args().write:
        write_part(PAGE, "python -m bench.metrics", written)
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
