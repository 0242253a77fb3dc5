"""LPIPS, by whichever network the folder of models has."""

from pathlib import Path

import torch
from torch import Tensor

from cbtalk.metrics.images import unit_range
from cbtalk.metrics.metric import Metric, PairMetric
from cbtalk.pretrained.lpips import find_lpips
from cbtalk.pretrained.networks import find_network


def find_lpips_metric(models: Path | None, network: str, device: str) -> Metric:
    """LPIPS by the network `lpips_<network>` in the folder `models`, or with the published weights (`find_lpips`).

    Raises:
        FileNotFoundError: a file is not there.
        ImportError: the network is ONNX, and onnxruntime is not installed.
        WeightsError: a file is there and cannot be used.
    """
    try:
        distance = find_network(models, f"lpips_{network}", device)
    except FileNotFoundError:
        return find_lpips(models, network).to(device)

    def lpips(prediction: Tensor, target: Tensor) -> Tensor:
        return torch.from_numpy(distance(unit_range(prediction), unit_range(target)).reshape(len(target)))

    return PairMetric(lpips)
