"""Planted faults: every one has to be caught in every framework."""

from crosscheck.faults.built import BUILT
from crosscheck.faults.coded import CODED
from crosscheck.faults.fault import Fault, Pass, Target, planted

FAULTS = {fault.name: fault for fault in (*BUILT, *CODED)}

__all__ = ["FAULTS", "Fault", "Pass", "Target", "planted"]
