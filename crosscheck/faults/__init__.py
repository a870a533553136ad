"""Planted faults: every one has to be caught in every framework.

Those of `coded` replace code of the package. Those of `built` change what a sound package is given,
and two of them the arrays that it returns: they show that the cases and the judge tell the
difference, and not that a package could have made the mistake.
"""

from crosscheck.faults.built import BUILT
from crosscheck.faults.coded import CODED
from crosscheck.faults.fault import Fault, Pass, Target, planted

FAULTS = {fault.name: fault for fault in (*BUILT, *CODED)}

__all__ = ["FAULTS", "Fault", "Pass", "Target", "planted"]
