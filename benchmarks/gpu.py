"""The block on a CUDA device, in milliseconds beside the floor: `python benchmarks/gpu.py`.

Each line is a pass over a map in one dtype and memory format. Columns: the floor, which is 3 reads
and 1 write of the map forward and 6 reads and 1 write more backward, at the pace of a copy of it;
the block by kernels, by plain operations, and by these compiled by torch.compile; kernels as a
multiple of the floor; and the largest difference between kernels and plain operations, of the
output and of the gradient of the map, relative to the largest number. Candidates take turns, so
that a busy card disturbs all; figures are medians.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from cbam_torch import CBAM, ops
from crosscheck.benchmark.plan import SHAPES

DTYPES = (torch.float32, torch.bfloat16)
FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}
# Passes over the map: a copy has 2.
PASSES = {"forward": 4, "forward and backward": 11}
WARM_UP, ROUNDS = 10, 50
COLUMNS = ("floor", "kernels", "plain", "compiled", "kernels/floor", "difference")

Step = Callable[[], object]


def medians(steps: dict[str, Step]) -> dict[str, float]:
    """Milliseconds of each, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + ROUNDS):
        for name, step in steps.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            step()
            end.record()
            end.synchronize()
            if turn >= WARM_UP:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(taken) for name, taken in times.items()}


def forward(block: torch.nn.Module, x: Tensor) -> Step:
    @torch.no_grad()
    def step() -> Tensor:
        return block(x)

    return step


def forward_and_backward(block: torch.nn.Module, x: Tensor, d_y: Tensor) -> Step:
    inputs = [x.detach().requires_grad_(), *block.parameters()]
    return lambda: torch.autograd.grad(block(inputs[0]), inputs, d_y)


def difference(block: torch.nn.Module, plain: torch.nn.Module, x: Tensor, d_y: Tensor) -> float:
    """The largest of y and of the gradient of x, relative to the largest number."""
    x = x.detach().requires_grad_()
    found, expected = ((y, *torch.autograd.grad(y, x, d_y)) for y in (block(x), plain(x)))
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True)
    )


def measure(x: Tensor) -> None:
    """Print the two lines of one map."""
    block = CBAM(x.shape[1], device=x.device)
    plain = CBAM(x.shape[1], device=x.device, kernels=False)
    plain.load_state_dict(block.state_dict())
    torch.compiler.reset()
    compiled = torch.compile(plain)
    if ops.path(x) != "triton":
        sys.exit(f"there are no kernels for {x.dtype} on {torch.cuda.get_device_name()}")
    d_y, copied = torch.randn_like(x), torch.empty_like(x)
    blocks = {"kernels": block, "plain": plain, "compiled": compiled}
    steps = {
        "forward": {name: forward(one, x) for name, one in blocks.items()},
        "forward and backward": {
            name: forward_and_backward(one, x, d_y) for name, one in blocks.items()
        },
    }
    error = difference(block, plain, x, d_y)
    for name, candidates in steps.items():
        taken = medians({"copy": lambda: copied.copy_(x), **candidates})
        floor = taken.pop("copy") * PASSES[name] / 2
        figures = "".join(f"{figure:>14.3f}" for figure in (floor, *taken.values()))
        print(f"  {name:22}{figures}{taken['kernels'] / floor:>14.2f}{error:>14.1e}", flush=True)


def main() -> None:
    if not torch.cuda.is_available():
        message = f"benchmarks/gpu.py needs a CUDA device, and torch {torch.__version__} sees none"
        print(message, file=sys.stderr)
        sys.exit(2)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, milliseconds")
    print(f"  {'':22}" + "".join(f"{column:>14}" for column in COLUMNS))
    for shape, dtype, (name, memory) in product(SHAPES, DTYPES, FORMATS.items()):
        print(f"{shape}, {str(dtype).removeprefix('torch.')}, channels {name}")
        x = torch.randn(shape, device="cuda", dtype=dtype).to(memory_format=memory)
        measure(x)


if __name__ == "__main__":
    main()
