"""The cost of every preset by stage: parameters, operations and milliseconds a frame, as a Markdown table.

python -m bench.presets [--presets mini paper] [--batch 4] [--rounds 5] [--threads 2] [--device cuda] [--write]

The models are untrained and the images noise, which changes no cost. GFLOP are multiplications and additions of
products and convolutions as our ops do them; ms are medians. The encoder runs once a source, all others every frame.
--write also writes the table into docs/model_cost.md.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from bench import machine
from bench.generated import write_part
from bench.model import Scene, make_scene
from bench.stages import Stopwatch, stage_operations
from cbtalk.allocator import keep_freed_memory
from cbtalk.model.config import PRESETS
from cbtalk.model.talker import Talker

PAGE = Path(__file__).parent.parent / "docs" / "model_cost.md"
ENCODER = "encoder, once a source"
GROUPS = {  # the ranges of a frame, by how their names begin
    "keypoints": "keypoint detector",
    "dense_motion": "dense motion",
    "encode_source": ENCODER,
    "compensation": "motion and appearance compensation",
    "generator": "generator with fusion",
}


def parameters(talker: Talker) -> dict[str, int]:
    """The number of parameters of each of GROUPS."""
    counts = dict.fromkeys(GROUPS.values(), 0)
    for name, parameter in talker.named_parameters():
        counts[_group_of(name)] += parameter.numel()
    return counts


def _group_of(name: str) -> str:
    for start, group in (
        ("motion_estimator.kp_detector", "keypoints"),
        ("motion_estimator.", "dense_motion"),
        ("net_g.encoder.", "encode_source"),
        ("net_g.generator.", "generator"),
        ("net_g.fuse_", "generator"),
        ("net_g.opening_enc", "generator"),
        ("net_g.source_pixels", "generator"),
    ):
        if name.startswith(start):
            return GROUPS[group]
    return GROUPS["compensation"]


def _grouped(stages: dict[str, float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for name, value in stages.items():
        sums[GROUPS[next(start for start in GROUPS if name.startswith(start))]] += value
    return sums


@torch.inference_mode()
def cost(scene: Scene, batch: int, rounds: int) -> Iterator[tuple[str, int, float, float]]:
    """Of each group and of a whole frame: parameters, operations and seconds."""
    frames, encode = scene.animate(batch), lambda: scene.talker.encode_source(scene.source)
    operations = _grouped(stage_operations(scene.animate(1)))
    operations[ENCODER] = _grouped(stage_operations(encode))[ENCODER]
    watches = {thunk: Stopwatch(thunk, scene.device) for thunk in (frames, encode)}
    for _ in range(rounds + 1):
        for watch in watches.values():
            watch()
    seconds = {name: value / batch for name, value in _grouped(watches[frames].medians(rounds)).items()}
    seconds[ENCODER] = _grouped(watches[encode].medians(rounds))[ENCODER]
    counts = parameters(scene.talker)
    for group in GROUPS.values():
        yield group, counts[group], operations[group], seconds[group]
    every = [group for group in GROUPS.values() if group != ENCODER]
    total = sum(operations[group] for group in every), sum(seconds[group] for group in every)
    yield "a frame", sum(counts.values()), *total


def table(names: list[str], device: str, batch: int, rounds: int) -> Iterator[str]:
    """The lines of the table."""
    facts = machine.header(device)
    where = facts.get("gpu", f"{facts['cpu']}, {facts['threads']} threads")
    yield f"{where}, torch {facts['torch']}, float32, batch {batch}, {facts['month']}."
    yield ""
    yield "| preset | stage | parameters (M) | GFLOP | ms |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for name in names:
        for stage, count, operations, seconds in cost(make_scene(name, device), batch, rounds):
            yield f"| `{name}` | {stage} | {count / 1e6:.2f} | {operations / 1e9:.2f} | {seconds * 1e3:.1f} |"


def main() -> None:
    """Prints the table, and writes it into the page where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    lines = list(table(arguments.presets, arguments.device, arguments.batch, arguments.rounds))
    print(*lines, sep="\n")
    if arguments.write:
        write_part(PAGE, "python -m bench.presets --write", lines)


if __name__ == "__main__":
    main()
