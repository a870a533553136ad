"""Records what the torch networks compute in float64: `python -m tests.data.record_networks`.

The other packages are compared with these numbers until they are compared with NumPy.
"""

import numpy as np

from tests import networks
from tests.frameworks.adapters import torch_adapter as torch


def record() -> dict[str, np.ndarray]:
    """What `tests.networks.expected` reads."""
    arrays, x = {}, networks.picture()
    for name, architecture in networks.NETWORKS.items():
        cotangent = networks.cotangent(architecture)
        modes = ("eval",) if architecture.head == "dual_pooling" else ("eval", "train")
        for mode in modes:
            network = torch.build("Backbone", architecture, dtype="float64")
            torch.package.load_canonical(network, networks.weights(architecture))
            found = torch.differentiate(network, x, cotangent, mode == "train")
            sketched = networks.sketch(found)
            arrays |= {f"{name}/{mode}/{key}": array for key, array in sketched.items()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(networks.FILE, **record())
