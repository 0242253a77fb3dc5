"""The inner values of the model for one driving frame, scale by scale."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cbtalk.model.generator import CompensatedGenerator
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.motion_compensation import pixel_flow
from cbtalk.model.talker import SourceState, Talker
from cbtalk.model.transformer import CrossAttention, ProjectedCodes, TransformerLayer
from cbtalk.model.warping import warp


class Stage(NamedTuple):
    """One scale s: flows at motion size h in its pixels, features in the scale's own size, attention to codes.

    Attention is that of the last layer, averaged over its heads: of each of T places to each code of the whole book,
    0 for codes that the scale may not use. None where the scale has no such compensation.
    """

    scale: int
    flow_before: Tensor  # (2, h, h)
    flow: Tensor  # (2, h, h), compensated
    occlusion: Tensor  # (h, h)
    warped: Tensor  # (C, s, s), occluded
    compensated: Tensor  # (C, s, s)
    motion_attention: Tensor | None  # (T, K)
    appearance_attention: Tensor | None  # (T, K)


@torch.inference_mode()
def stages(talker: Talker, source: SourceState, driving: Keypoints) -> list[Stage]:
    """The stages of one driving frame, whose keypoints are (1, K)."""
    net, motion = talker.net_g, talker.motion_estimator.dense_motion_network(source.small, source.keypoints, driving)
    deformation, occlusion = motion.deformation, motion.occlusion
    tables, found = net.tables(motion), []
    for index, scale in enumerate(talker.config.joining_scales):
        before = deformation
        with _watched(net) as attention:
            compensated, step = net.compensate(index, source.features[index], deformation, occlusion, tables)
        if step is not None:
            deformation, occlusion = step.deformation, step.occlusion
        warped = warp(source.features[index], deformation, occlusion)
        found.append(
            Stage(
                scale,
                pixel_flow(before)[0],
                pixel_flow(deformation)[0],
                occlusion[0, 0],
                warped[0].float(),
                compensated[0].float(),
                *(_whole(attention.get(book), index, net, book) for book in ("motion", "appearance")),
            )
        )
    return found


def attention_weights(layer: CrossAttention, tokens: Tensor, position: Tensor | None, codes: ProjectedCodes) -> Tensor:
    """Of tokens (B, T, D) to the codes (K, D), averaged over heads: (B, T, K), in float32."""
    query, key = layer.query(tokens, position).float(), codes.key.float()
    query, key = (part.unflatten(-1, (layer.heads, -1)) for part in (query, key))
    scores = torch.einsum("bthd,khd->bhtk", query, key) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1).mean(dim=1)


@contextmanager
def _watched(net: CompensatedGenerator) -> Iterator[dict[str, Tensor]]:
    """The attention of the last layer of each book, (1, T, codes of the scale), as it is computed."""
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for book, name in (("motion", "motion_block"), ("appearance", "app_block")):
            layers = getattr(net, name, None)
            if layers is None:
                continue

            def keep(layer: nn.Module, inputs: tuple[Tensor, Tensor | None, ProjectedCodes], book: str = book) -> None:
                assert isinstance(layer, CrossAttention)
                seen[book] = attention_weights(layer, *inputs)

            last = layers[-1]
            assert isinstance(last, TransformerLayer)
            stack.callback(last.cross_attn.register_forward_pre_hook(keep).remove)
        yield seen


def _whole(attention: Tensor | None, index: int, net: CompensatedGenerator, book: str) -> Tensor | None:
    """The attention to a scale's codes as one to all of its book: (T, K)."""
    if attention is None:
        return None
    codebook = net.quantize_motion if book == "motion" else net.quantize_app
    whole = attention.new_zeros(attention.shape[1], codebook.embedding.num_embeddings)
    whole[:, codebook.rows(index)] = attention[0]
    return whole
