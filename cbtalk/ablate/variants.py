"""The variants of a training configuration: the paper's ablations, and the other switches of the released options."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from cbtalk.model.config import TalkerConfig
from cbtalk.train.sections import TrainConfig

FULL = "full"
SIZES = {"quarter": 0.25, "half": 0.5, "double": 2.0}  # of the codebooks
FROZEN = {"frozen-motion": "motion_estimator", "frozen-encoder": "net_g.encoder"}


class Variant(NamedTuple):
    """A changed configuration, its name and what is changed, in words."""

    name: str
    words: str
    config: TrainConfig


def variants(config: TrainConfig) -> list[Variant]:
    """All variants of a configuration, itself the first.

    Frozen parts keep the weights of `run.init`, and without that there are no such variants.
    """
    found = [Variant(FULL, "as configured", config)]
    for name, words, changes in _of_model(config.model):
        model = replace(config.model, **changes)
        if model != config.model:
            found.append(Variant(name, words, replace(config, model=model)))
    if config.run.init is not None:
        for name, part in FROZEN.items():
            frozen = replace(config, run=replace(config.run, frozen=(*config.run.frozen, part)))
            if part == "motion_estimator":  # there is nothing to learn for the keypoint detector alone
                frozen = replace(frozen, guidance=replace(frozen.guidance, steps=0))
            found.append(Variant(name, f"{part} stays as in run.init", frozen))
    return found


def _of_model(model: TalkerConfig) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, words and changes of each variant of the model."""
    no_motion, no_appearance = {"motion_compensation": False}, {"appearance_scales": 0}
    yield "no-mcc", "without motion compensation", no_motion
    yield "no-acc", "without appearance compensation", no_appearance
    yield "no-mcc-acc", "without both", no_motion | no_appearance
    for allocation in ("shared", "disjoint", "unsplit"):
        for book in ("motion", "appearance"):
            yield f"{book}-{allocation}", f"{book} codes {allocation}", {f"{book}_allocation": allocation}
    for count in range(1, len(model.joining_scales)):
        words = f"features join and are compensated at {_first(count)} alone"
        yield f"scales-{count}", words, {"fused_scales": count}
    for count in range(1, len(model.compensated_scales)):
        yield f"acc-scales-{count}", f"appearance compensated at {_first(count)} alone", {"appearance_scales": count}
    for name, factor in SIZES.items():
        sizes = {key: round(getattr(model, key) * factor) for key in ("motion_codes", "appearance_codes")}
        if min(sizes.values()) >= len(model.scales):
            words = "{motion_codes} motion and {appearance_codes} appearance codes".format(**sizes)
            yield f"codes-{name}", words, sizes
    yield "query-both", "source and driving keypoints in the motion query", {"keypoint_query": "source_driving"}
    yield "query-none", "no keypoints in the motion query", {"keypoint_query": "none"}
    yield "query-attached", "gradients through the motion query", {"detach_motion_query": False}
    yield "no-motion-encoder", "motion codes joined by one convolution", {"motion_encoder": False}
    yield "no-positions", "without position embeddings", {"position_embeddings": False}
    yield "no-added", "features modulate and are not added", {"added_features": False}
    for weight in (0.0, 0.5):
        yield f"fusion-{weight:g}", f"modulation weighted by {weight:g}", {"fusion_weight": weight}


def _first(count: int) -> str:
    return "the coarsest scale" if count == 1 else f"the {count} coarsest scales"
