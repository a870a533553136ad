"""PyTorch: FSDP2 over gloo, a shard of the weights and half of the batch in each of two processes.

    python -m tests.distributed.torch_fsdp [--local]

With --local the norms are not synchronized.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import distributed, multiprocessing
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import cbam_torch
from tests.distributed import step

PROCESSES = 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, "--local" not in sys.argv)
        multiprocessing.spawn(train, arguments, PROCESSES)
        found = torch.load(Path(folder, "step"), weights_only=True)
    network = cbam_torch.Backbone(step.ARCHITECTURE, dtype=torch.float64)
    network.load_state_dict(found["network"])
    step.judge(found["loss"], cbam_torch.to_canonical(network))


def train(rank: int, folder: str, synchronized: bool) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    network = cbam_torch.Backbone(step.ARCHITECTURE, dtype=torch.float64, synchronized=synchronized)
    cbam_torch.load_canonical(network, step.WEIGHTS)
    mesh = distributed.init_device_mesh("cpu", (PROCESSES,))
    for stage in network.stages:
        for block in network.get_submodule(stage):
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    optimizer = torch.optim.SGD(network.parameters(), step.RATE)
    x = torch.from_numpy(np.moveaxis(step.pictures(), -1, 1)).chunk(PROCESSES)[rank]
    labels = torch.from_numpy(step.labels()).chunk(PROCESSES)[rank]
    loss = cross_entropy(network(x), labels)
    loss.backward()
    optimizer.step()
    loss = loss.detach() / PROCESSES
    distributed.all_reduce(loss)
    whole = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        torch.save({"loss": loss.item(), "network": whole}, Path(folder, "step"))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
