"""Train a network with CBAM in PyTorch, on CIFAR-10, CIFAR-100 or a folder such as ImageNet.

Processes that torchrun starts share each batch. A run that was killed goes on with --resume, on a
CPU to the bits that it would have had; and so it does in the recipes of the other frameworks.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import numpy as np
import runs
import torch
import torch.nn.functional as F
from pictures import Pictures
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

import cbam_torch
from cbam_core.slots import TORCH
from cbam_torch.train import load_state, to_state

# What torchrun says of this process.
RANK, LOCAL_RANK = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
WORLD = int(os.environ.get("WORLD_SIZE", 1))
DEVICE = torch.device("cuda", LOCAL_RANK) if torch.cuda.is_available() else torch.device("cpu")


def main() -> None:
    args = runs.arguments(__doc__, "torchrun --nproc-per-node gpu examples/train_torch.py", WORLD)
    train, test = runs.data(args)
    if DEVICE.type == "cuda":
        torch.cuda.set_device(DEVICE)
    if WORLD > 1:
        distributed.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo")
    if args.evaluate:
        architecture, weights = runs.network(args.evaluate, len(test.classes))
        network = cbam_torch.Backbone(architecture, device=DEVICE)
        cbam_torch.load_canonical(network, weights)
        runs.show(evaluate(network, test, args), RANK == 0)
    else:
        fit(args, train, test)
    if WORLD > 1:
        distributed.destroy_process_group()


def fit(args: argparse.Namespace, train: Pictures, test: Pictures) -> None:
    """Train from the newest checkpoint, or from the beginning, to the end."""
    run = runs.Run(args, train, writes=RANK == 0)
    # Norms over the whole batch make a step over many processes that of one.
    network = cbam_torch.Backbone(run.architecture, device=DEVICE, synchronized=WORLD > 1)
    optimizer = torch.optim.SGD(
        network.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, run.drops, runs.DROP)
    state = run.start()
    load_state(network, optimizer, scheduler, TORCH.from_canonical(state))
    model = DistributedDataParallel(network) if WORLD > 1 else network

    for piece in run.pieces(state.step):
        model.train()
        total = torch.zeros(4, dtype=torch.float64, device=DEVICE)
        for x, labels in batches(train, piece.indices, args, piece.epoch):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=args.amp):
                logits = model(x)
                loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += sums(logits.detach(), labels)
            run.progress(scheduler.last_epoch)
        tested = evaluate(network, test, args) if piece.ends_epoch else {}
        step = scheduler.last_epoch
        state = to_state(network, optimizer, run.recipe(step), step)
        run.end(piece, TORCH.to_canonical(state), means(total), tested)
    run.finish(cbam_torch.to_canonical(network))


@torch.no_grad()
def evaluate(network: nn.Module, test: Pictures, args: argparse.Namespace) -> dict[str, float]:
    """Mean loss, and how often the label is the first and among the first five."""
    network.eval()
    total = torch.zeros(4, dtype=torch.float64, device=DEVICE)
    for x, labels in batches(test, test.in_turn(args.batch_size), args):
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=args.amp):
            logits = network(x)
        total += sums(logits, labels)
    return means(total)


class Examples(Dataset):
    """Pictures (3, H, W) and labels, augmented as in `epoch`, or not at all if None."""

    def __init__(self, pictures: Pictures, epoch: int | None) -> None:
        self.pictures, self.epoch = pictures, epoch

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.pictures.picture(index, self.epoch)
        return torch.from_numpy(picture).permute(2, 0, 1), self.pictures.labels[index]


def batches(
    pictures: Pictures,
    indices: Sequence[np.ndarray],
    args: argparse.Namespace,
    epoch: int | None = None,
):
    """This process's part of each batch, on its device."""
    parts = [batch[RANK::WORLD].tolist() for batch in indices]
    loader = DataLoader(
        Examples(pictures, epoch),
        batch_sampler=[part for part in parts if part],
        num_workers=args.workers,
        pin_memory=DEVICE.type == "cuda",
    )
    for x, labels in loader:
        yield x.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True)


def sums(logits: Tensor, labels: Tensor) -> Tensor:
    """(4,): the loss, labels that came first and among the first five, and their number."""
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    found = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    return torch.stack([loss, found[:, 0].sum(), found.sum(), loss.new_tensor(len(labels))])


def means(total: Tensor) -> dict[str, float]:
    """Of the sums of all processes."""
    if WORLD > 1:
        distributed.all_reduce(total)
    loss, top1, top5 = (total[:3] / total[3]).tolist()
    return {"loss": loss, "top1": top1, "top5": top5}


if __name__ == "__main__":
    main()
