"""orbax directories, as orbax writes them: `python -m tests.core.orbax_files FOLDER`.

Below FOLDER: `tree`, the same as `plain`, a folder for each array, `manager` with the steps 5 and
12, and `items` with the step 7, which keeps trees side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

TREE = {
    "params": {"ca": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "half": jnp.asarray([0.5, -2.0], jnp.bfloat16),
    "nnx": {"kernel": {"value": np.ones(2)}},
    "layers": [np.zeros(1), np.ones(1)],
    "dense_10": np.ones(1),
    "dense_9": np.ones(1),
    "step": 7,
    "arch": "resnet18",
    "nothing": None,
    "empty": {},
}


def main(folder: Path) -> None:
    for name, use_ocdbt in (("tree", True), ("plain", False)):
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=use_ocdbt)) as checkpointer:
            checkpointer.save(folder / name, args=ocp.args.PyTreeSave(TREE))
    with ocp.CheckpointManager(folder / "manager") as manager:
        for step in (5, 12):
            manager.save(step, args=ocp.args.StandardSave({"a": np.full(2, float(step))}))
    with ocp.CheckpointManager(folder / "items") as manager:
        trees = {
            "params": ocp.args.StandardSave({"a": np.zeros(2)}),
            "opt_state": ocp.args.StandardSave({"a": np.ones(2)}),
            "config": ocp.args.JsonSave({"lr": 0.1}),
        }
        manager.save(7, args=ocp.args.Composite(**trees))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
