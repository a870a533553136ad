"""What pytorchcv's CBAM-ResNet-18 makes of photographs: `python -m tests.pytorchcv_peer FOLDER`.

Writes its state dict, network.pth, and arrays.npz with the pictures (N, 224, 224, 3) and the
logits (N, 1000), in float64. A process of its own, since it needs PyTorch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from pytorchcv.models.cbamresnet import cbam_resnet18
from skimage import data

SIZE = 224


def photographs() -> np.ndarray:
    """Two photographs of scikit-image, cut to size, scaled as networks are trained."""
    pictures = np.stack([data.astronaut()[:SIZE, 100 : 100 + SIZE], data.cat()[:SIZE, :SIZE]])
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    return (pictures / 255 - mean) / deviation


def main(folder: Path) -> None:
    torch.manual_seed(0)
    network, x = cbam_resnet18(), photographs()
    first = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    network.double().train()
    # Statistics and scales that are not those of a new network.
    with torch.no_grad():
        for _ in range(5):
            network(first)
        for weight in network.parameters():
            if weight.ndim == 1:
                weight += 0.1 * torch.randn_like(weight)
        # What is saved is rounded, and so is what gives the logits.
        torch.save(network.float().state_dict(), folder / "network.pth")
        logits = network.eval().double()(first)
    np.savez(folder / "arrays.npz", pictures=x, logits=logits.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
