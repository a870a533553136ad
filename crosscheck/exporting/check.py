"""What `cbam check --exports` runs: networks and blocks, written as files, at several sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cbam_core import Architecture, CBAMSpec
from crosscheck import cases, trained
from crosscheck.case import Case, run
from crosscheck.exporting.job import ExportJob
from crosscheck.networks import network_case

# Runtimes fold norms into convolutions, and sum in an order of their own.
LIMIT = 1e-5
# Of the pictures of the small networks.
SIDE = 48

# Every gate, pool, order, descriptor and rank, in few blocks: each takes exporters seconds.
BLOCKS = {
    "all-pools": CBAMSpec(
        16,
        hidden=4,
        mlp_bias=True,
        spatial_bias=True,
        spatial_norm=True,
        channel_pools=("avg", "max", "lp", "lse"),
        gate="hard_sigmoid",
        order="spatial_channel",
        residual=True,
    ),
    "conv-descriptor": CBAMSpec(
        16, hidden=4, gate="hard_sigmoid_keras2", order="parallel", spatial_descriptor="conv"
    ),
    "light-signals": CBAMSpec(
        16, hidden=4, gate="double_sigmoid", pooling="light", rank=1, kernel_size=3
    ),
    "se": CBAMSpec.preset("se", 16, hidden=4),
    "spatial-volumes": CBAMSpec(16, order="spatial", rank=3, kernel_size=3, spatial_norm=True),
}
NETWORKS = {
    "resnet": Architecture("basic", (1,), (8,), attention="cbam", num_classes=10),
    "mobilenet": Architecture("separable", (1,), (16,), attention="cbam", num_classes=10),
}
# And with --full, what no other network has.
MORE_NETWORKS = {
    "resnext": Architecture(
        "bottleneck", (1, 1), (8, 16), groups=2, group_width=32, attention="se", num_classes=10
    ),
    "dual-pooling": Architecture(
        "basic",
        (1,),
        (8,),
        attention="cbam",
        placement="stem_and_tail",
        num_classes=10,
        head="dual_pooling",
    ),
}


@dataclass(frozen=True)
class ExportPlan:
    """A block or network to write, and to run at two batch sizes and two sizes of the input."""

    case: Case
    dtype: str = "float32"
    mode: str = "eval"
    fault: str = ""

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """By its shape: all samples or one; of one also a single position.

        The map is whole, or cut off on each of its axes.
        """
        x = self.case.x
        rank = x.ndim - 2
        cut = (slice(None), *(slice(-axis) for axis in range(1, rank + 1)))
        one = (slice(1), *[slice(1)] * rank)
        found = [x, x[cut], x[:1], x[:1][cut], x[one]]
        return {"x".join(map(str, part.shape)): part for part in found}

    @property
    def limits(self) -> Mapping[str, float]:
        return {"output": LIMIT}

    def job(self, name: str) -> ExportJob:
        return ExportJob(name, self.case.described, self.case.weights, self.inputs)

    def expected(self) -> dict[str, np.ndarray]:
        """The reference's output for each input."""
        described, weights = self.case.described, self.case.weights
        return {
            f"output:{name}": run(described, weights, x, training=False).output
            for name, x in self.inputs.items()
        }


def plan_exports(*, full: bool = False) -> list[ExportPlan]:
    """The trained digits network, small networks and blocks; if `full`, those of `cbam check`."""
    architectures = {**NETWORKS, **(MORE_NETWORKS if full else {})}
    networks = [network_case(name, one, size=SIDE) for name, one in architectures.items()]
    blocks = _every_block() if full else cases.build([(n, "relu", s) for n, s in BLOCKS.items()])
    (digits,) = (case for case in trained.cases() if case.name == trained.NETWORK)
    return [ExportPlan(case.rounded("float32")) for case in (digits, *networks, *blocks)]


def _every_block() -> list[Case]:
    """Of the cases of `cbam check` the first of each spec."""
    first: dict[CBAMSpec, Case] = {}
    for case in cases.default_cases():
        if isinstance(case.described, CBAMSpec):
            first.setdefault(case.described, case)
    return list(first.values())
