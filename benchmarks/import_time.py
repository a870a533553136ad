"""What importing a package adds to importing its framework: `python benchmarks/import_time.py`.

Each import runs in a fresh process, by whose processor time it is measured: other programs on the
machine disturb that least.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

PACKAGES = {
    "cbam_torch": "torch",
    "cbam_tf": "tensorflow",
    "cbam_keras": "keras",
    "cbam_flax": "jax, flax.nnx",
    "cbam_flax.linen": "jax, flax.nnx, flax.linen",
    "cbam_core": "numpy",
}
ROUNDS = 7


def milliseconds(framework: str, package: str) -> float:
    """What `package` takes, once its framework is there."""
    code = (
        f"import time, {framework}; start = time.process_time(); import {package};"
        "print(1000 * (time.process_time() - start))"
    )
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "jax"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    return float(run.stdout)


def main() -> None:
    taken: dict[str, list[float]] = {package: [] for package in PACKAGES}
    for _ in range(ROUNDS):
        for package, framework in PACKAGES.items():
            taken[package].append(milliseconds(framework, package))
    print(f"{'package':18} adds to its framework's import, ms (median of {ROUNDS}, range)")
    for package, times in taken.items():
        low, high = min(times), max(times)
        print(f"{package:18} {statistics.median(times):6.1f}   {low:.1f} to {high:.1f}")


if __name__ == "__main__":
    main()
