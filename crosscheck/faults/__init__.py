"""Planted faults: each replaces code of a package, and has to be caught in every framework."""

from crosscheck.faults.backward import BACKWARD
from crosscheck.faults.constructors import CONSTRUCTORS
from crosscheck.faults.convolution import CONVOLUTION
from crosscheck.faults.fault import Fault, Target, planted
from crosscheck.faults.gates import GATES
from crosscheck.faults.mlp import MLP
from crosscheck.faults.norm import NORM
from crosscheck.faults.pooling import POOLING
from crosscheck.faults.weights import WEIGHTS

FAULTS = {
    fault.name: fault
    for fault in (
        *CONSTRUCTORS, *WEIGHTS, *POOLING, *MLP, *CONVOLUTION, *NORM, *GATES, *BACKWARD,
    )
}  # fmt: skip

__all__ = ["FAULTS", "Fault", "Target", "planted"]
