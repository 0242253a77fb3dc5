"""Floors, reports and README, from figures made up here."""

import copy
import json
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from bench import readme, work
from bench.ceilings import Ceilings
from bench.compare import changes
from bench.generated import replaced
from bench.ops import conv3x3
from bench.page import page
from bench.words import duration, scaled, verdict

Results = dict[str, Any]
CEILINGS = Ceilings(1e10, 1e11, 1e11, 1e12, 1e9, copies=((1000, 5e10), (10**6, 1e10)))


def timing(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.99 * median, "high": 1.01 * median, "rounds": 9}


def a_run() -> Results:
    record = {
        "op": "op",
        "case": "op <1 & 2>",
        "direction": "fwd",
        "times": {"cbtalk": timing(2e-3), "peer": timing(4e-3)},
        "ratios": {"peer": timing(2.0)},
        "peaks": {"cbtalk": 1 << 20, "peer": 0},
        "remarks": {"absent": "not here: <reason>"},
        "work": {"bytes": 1e7, "operations": 1e8, "rate": "float32", "exponentials": 0},
        "floor": {"seconds": 1e-3, "by": "memory", "share": 0.5, "GB/s": 5.0, "GFLOP/s": 50.0},
    }
    whole = {"cbtalk, batch 1": timing(1.0), "reference ops, batch 1, source encoded for every frame": timing(2.0)}
    stage = {"stage": "keypoints", "batch": 1, "seconds": 0.1, "operations": 1e9, "peak": 1 << 20, "share": 0.1}
    return {
        "machine": {"cpu": "a <machine>"},
        "ceilings": {"copy": 1e10, "copies": [[1000, 5e10]], "float32": 1e11, "bfloat16": 1e12, "exponentials": 1e9},
        "ops": [record, {"op": "op", "case": "op 2", "direction": "fwd", "fail": "not the double"}],
        "calls": {"nearest_code": 2e-5, "conv3x3, raw op": 6e-6},
        "model": {
            "preset": "paper",
            "largest difference of the images": 1e-6,
            "times": whole,
            "stages": [stage],
            "once a source": {"encode_source": 0.2},
            "media": {"decode": 1e-3, "encode": 2e-3},
        },
        "training": {
            "config": "mini.yaml",
            "batch": 4,
            "precision": "bf16",
            "seconds": 1.0,
            "parts": {"forward": 0.4, "backward": 0.6},
            "eager": 1.5,
            "operations": 3e11,
            "share": 0.3,
        },
    }


def test_the_floor_is_the_longest_of_memory_arithmetic_and_exponentials() -> None:
    assert CEILINGS.floor(work.Work(1e7, 1e7, exponentials=1e3)) == (1e-3, "memory")
    assert CEILINGS.floor(work.Work(1e6, 1e9, exponentials=1e3)) == (1e-2, "arithmetic")
    assert CEILINGS.floor(work.Work(1e6, 1e9, "bfloat16", exponentials=1e8)) == (1e-1, "exponentials")


def test_what_fits_into_the_caches_has_their_bandwidth() -> None:
    assert CEILINGS.bandwidth(100) == CEILINGS.bandwidth(1000) == CEILINGS.bandwidth(5000) == 5e10
    far = Ceilings(1e10, 1, 1, 1, 1, copies=((1000, 5e10), (2000, 2e10)))
    assert far.bandwidth(1999) == 5e10 and far.bandwidth(2000) == 2e10


def test_ceilings_keep_the_better_of_two_measurements() -> None:
    other = Ceilings(2e10, 1.0, 1.0, 1.0, 1.0, copies=((1000, 1.0), (10**6, 2e10)))
    best = CEILINGS.best(other)
    assert (best.copy, best.float32, best.copies) == (2e10, 1e11, ((1000, 5e10), (10**6, 2e10)))


def test_minimal_filtering_multiplies_less_than_plain_convolution() -> None:
    def saving(size: int, upsample: bool) -> float:
        done = conv3x3.floor(1, 64, 64, size, upsample=upsample, dtype=torch.float32).operations
        return 2 * 9 * 64 * 64 * size**2 * (4 if upsample else 1) / done

    assert (saving(64, False), saving(16, False), saving(64, True)) == (4, 2.25, 4)


class Tags(HTMLParser):
    """Every tag closed in order, and no address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        addresses = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.fetched += [address for address in addresses if not address.startswith("#")]
        assert tag not in ("script", "link", "iframe")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag != "meta":
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_escaped_and_needs_no_network() -> None:
    text = page(a_run())
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.fetched == [] and "@import" not in text and "url(http" not in text
    assert "a <machine>" in tags.text and "op <1 & 2>" in tags.text and "<reason>" in tags.text
    assert text.count("<svg") >= 4
    assert "2.00 ms, 2.0 times the least possible on this machine (50% of the limit). Memory sets" in tags.text
    assert "FAIL: not the double" in tags.text
    assert "nearest_code20.0 us" in tags.text


def test_a_run_of_the_ops_alone_makes_a_page() -> None:
    results = a_run()
    del results["model"], results["training"]
    assert "whole model" not in page(results)


@pytest.mark.parametrize(
    ("by", "words"),
    [("memory", "10 MB"), ("arithmetic", "100 MFLOP"), ("exponentials", "7 Mexp")],
)
def test_a_verdict_names_what_sets_the_limit(by: str, words: str) -> None:
    record = a_run()["ops"][0]
    record["floor"]["by"] = by
    record["work"]["exponentials"] = 7e6
    assert words in verdict(record) and by.capitalize() in verdict(record)


def test_three_digits_and_a_unit() -> None:
    assert [duration(s) for s in (1.234e-6, 0.01234, 123.4e-6, 12.34)] == ["1.23 us", "12.3 ms", "123 us", "12.3 s"]
    assert [scaled(x) for x in (1.5e12, 2.34e9, 5e6, 120.0)] == ["1.5 T", "2.34 G", "5 M", "0.12 k"]


def test_changes_beyond_the_noise_are_found_and_others_are_not() -> None:
    base, now = a_run(), a_run()
    assert changes(base, now) == []
    for side in ("cbtalk", "peer"):  # a machine that is twice as fast changes no ratio
        now["ops"][0]["times"][side] = {key: value / 2 for key, value in now["ops"][0]["times"][side].items()}
    assert changes(base, now) == []
    now["ops"][0]["ratios"]["peer"] = timing(1.0)
    now["model"]["times"]["cbtalk, batch 1"] = timing(1.5)
    found = {(change.case, round(change.before, 2), round(change.now, 2)) for change in changes(base, now)}
    assert found == {("op <1 & 2>", 2.0, 1.0), ("model paper, cbtalk, batch 1", 2.0, 1.33)}


def test_readme_and_the_page_agree_with_the_committed_figures() -> None:
    figures = json.loads(readme.FIGURES.read_text(encoding="utf-8"))
    for path, lines in readme.parts(figures).items():
        text = path.read_text(encoding="utf-8")
        assert replaced(text, readme.COMMAND, lines) == text, path.name


def test_a_changed_figure_is_seen_in_readme() -> None:
    figures = json.loads(readme.FIGURES.read_text(encoding="utf-8"))
    changed = copy.deepcopy(figures)
    shown = {case.name for case in readme.shown()}
    record = next(record for record in changed["ops"] if record["case"] in shown)
    record["times"]["cbtalk"]["median"] *= 2
    before, after = readme.parts(figures), readme.parts(changed)
    assert all(before[path] != after[path] for path in before)
    assert all(any(line.startswith("| `nearest_code` ") for line in lines) for lines in before.values())


def test_no_committed_share_is_above_the_limit() -> None:
    figures = json.loads(readme.FIGURES.read_text(encoding="utf-8"))
    shares = {record["case"]: record["floor"]["share"] for record in figures["ops"]}
    assert all(0 < share < 1 for share in shares.values()), shares
    assert all(0 <= row["share"] < 1 for row in figures["model"]["stages"])
