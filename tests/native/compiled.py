"""Compiles the kernels for cards of a compute capability, with no card: run by test_cuda.py.

CBAM_KERNELS=always python tests/native/compiled.py 80
"""

from __future__ import annotations

import sys
from itertools import product

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from cbam_torch import cuda, ops


class Driver:
    """All that Triton asks a driver in order to compile, and nothing to run with."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def check(kernel, name: str) -> None:
    """It became a program, goes through maps by 16 bytes, and has no fused multiply-add."""
    assert kernel.asm["cubin"], name
    code = kernel.asm["ptx"]
    assert "fma." not in code, name
    assert name == "_join" or "ld.global.v4.b32" in code, name
    assert name in ("_join", "_pool") or "st.global.v4.b32" in code, name


def main(capability: int) -> None:
    driver.set_active(Driver(capability))
    launch = JITFunction.run
    compiled = set()

    def compile_only(self, *arguments, grid, warmup, **options):
        check(launch(self, *arguments, grid=grid, warmup=True, **options), self.__name__)
        compiled.add(self.__name__)

    JITFunction.run = compile_only
    cuda.knows = lambda x: True
    for dtype, last in product((torch.float32, torch.bfloat16), (False, True)):
        x = torch.randn(1, 32, 16, 32).to(dtype)
        x = x.to(memory_format=torch.channels_last) if last else x
        at, pooled = ops.pool_space(x.requires_grad_(), ops.AVG_MAX)
        channel = pooled[0][..., None, None] + pooled[1][..., None, None]
        at, pooled = ops.pool_channels(at, channel)
        ops.scale(at, channel, pooled[0] + pooled[1]).sum().backward()
    print(*sorted(compiled))


if __name__ == "__main__":
    main(int(sys.argv[1]))
