"""Talkers in half precision: which parameters are cast, once, and which stay in float32."""

import torch
from torch import nn

from cbtalk.model.blocks import Float32Conv2d, GroupNorm, ToImage
from cbtalk.model.keypoints import KeypointDetector
from cbtalk.model.talker import Talker

_IN_FLOAT32 = (KeypointDetector, Float32Conv2d, ToImage, GroupNorm, nn.BatchNorm2d)


def cast(talker: Talker, dtype: torch.dtype) -> Talker:
    """The talker itself with its convolutions, linear maps, codebooks and layer norms in `dtype`, for inference.

    Features go from layer to layer in `dtype`. In float32 stay the keypoint detector, whose softmax amplifies errors
    tenfold; the last layers of deformation, flow and occlusion; the sums of the finest scale and the convolution that
    makes the image of them; and the parameters of group and batch norms. Statistics of all norms and of softmax are
    float32 in every dtype. What was rounded is lost: a weights file is to be written of a talker in float32.

    Args:
        dtype: torch.float32, which changes nothing, torch.bfloat16 or torch.float16.

    Raises:
        ValueError: another dtype.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"a talker computes in float32, bfloat16 or float16, not in {dtype}")
    if dtype != torch.float32:
        _cast(talker, dtype)
    return talker


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    if isinstance(module, _IN_FLOAT32):
        return
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)
    for child in module.children():
        _cast(child, dtype)
