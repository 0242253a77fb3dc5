"""A VQ-VAE of scikit-learn's handwritten digits, trained in less than a minute on two cores.

pip install 'cbtalk[examples]' && python examples/train_vqvae.py
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from cbtalk.nn import QuantizedFeatures, VectorQuantize


class VQVAE(nn.Module):
    """Images (B, 1, 8, 8) as 4 x 4 codes, and back."""

    def __init__(self, width: int = 32, dim: int = 16, codes: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.GELU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(width, dim, 1),
        )  # fmt: skip
        # The codebook follows the features that choose its codes; codes that hardly any does are given new ones.
        self.quantize = VectorQuantize(dim, codes, ema=0.95, kmeans_steps=10, revive_below=1.0)
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, width, 3, padding=1), nn.GELU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(width, 1, 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> tuple[Tensor, QuantizedFeatures]:
        """The images as they come back, and the codes between."""
        found = self.quantize(self.encoder(images))
        return self.decoder(found.quantized), found


def main() -> None:
    """Trains on most of the digits and reconstructs the others."""
    parser = argparse.ArgumentParser(description="A VQ-VAE of handwritten digits.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8) in [0, 1]
    images = images[torch.randperm(len(images))]
    training, unseen = images[:1500], images[1500:]

    model = VQVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(1, args.steps + 1):
        batch = training[torch.randint(len(training), (args.batch,))]
        reconstructed, found = model(batch)
        error = F.mse_loss(reconstructed, batch)
        optimizer.zero_grad()
        (error + found.loss).backward()
        optimizer.step()
        if step % max(args.steps // 5, 1) == 0:
            in_use = model.quantize.perplexity.item()
            print(f"step {step}: reconstruction error {error.item():.4f}, {in_use:.1f} of 64 codes in use")

    model.eval()
    with torch.no_grad():
        reconstructed, found = model(unseen)
    print(f"unseen digits: reconstruction error {F.mse_loss(reconstructed, unseen):.4f}, ", end="")
    print(f"{(found.counts > 0).sum()} codes chosen; that of a grey image is {unseen.var():.4f}")


if __name__ == "__main__":
    main()
