"""PyTorch: DistributedDataParallel over gloo, half of the batch in each of two processes.

    python -m tests.distributed.torch_ddp [--local]

With --local the norms are not synchronized.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import distributed, multiprocessing
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import cbam_torch
from tests.distributed import step

PROCESSES = 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, "--local" not in sys.argv)
        multiprocessing.spawn(train, arguments, PROCESSES)
        step.judge(**torch.load(Path(folder, "step"), weights_only=False))


def train(rank: int, folder: str, synchronized: bool) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    network = cbam_torch.Backbone(step.ARCHITECTURE, dtype=torch.float64, synchronized=synchronized)
    cbam_torch.load_canonical(network, step.WEIGHTS)
    parallel = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(parallel.parameters(), step.RATE)
    x = torch.from_numpy(np.moveaxis(step.pictures(), -1, 1)).chunk(PROCESSES)[rank]
    labels = torch.from_numpy(step.labels()).chunk(PROCESSES)[rank]
    loss = cross_entropy(parallel(x), labels)
    loss.backward()
    optimizer.step()
    loss = loss.detach() / PROCESSES
    distributed.all_reduce(loss)
    if rank == 0:
        found = {"loss": loss.item(), "weights": cbam_torch.to_canonical(network)}
        torch.save(found, Path(folder, "step"))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
