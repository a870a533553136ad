"""Train a small network with dropout from a seed, anew for each FILE, and save its weights there.

    python -m tests.frameworks.train_from_seed ADAPTER DTYPE THREADS FILE...

A process of its own, since the number of threads and TensorFlow's determinism stay as they are.
"""

from __future__ import annotations

import importlib
import os
import sys

import numpy as np

from tests import networks


def main(adapter: str, dtype: str, threads: str, *files: str) -> None:
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "PJRT_NPROC"):
        os.environ[name] = threads
    framework = importlib.import_module(f"tests.frameworks.adapters.{adapter}_adapter")
    architecture, rng = networks.NETWORKS["dual_pooling"], np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 48, 48, 3)).astype(dtype), rng.integers(0, 5, 8)
    for file in files:
        np.savez(file, **framework.train_from_seed(architecture, 7, x, labels, steps=3))


if __name__ == "__main__":
    main(*sys.argv[1:])
