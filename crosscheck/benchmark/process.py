"""The command's side of a worker: the process of one framework, and its report."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TextIO

from crosscheck.benchmark.plan import Plan
from crosscheck.benchmark.report import Report, Row
from crosscheck.process import CrashedError, RefusedError


def measure(plan: Plan, on_progress: Callable[[str, int], None] = lambda at, done: None) -> Report:
    """Run the plan in a process of its own.

    Args:
        on_progress: called with what is done now, and with how many rounds are done.

    Raises:
        RefusedError: the framework sees no such device.
        CrashedError: the process ended early.
    """
    report, started = Report(plan), time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "crosscheck.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(plan),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # A process that has ended already is told of below.
            with contextlib.suppress(BrokenPipeError), process.stdin:
                json.dump(plan.to_dict(), process.stdin)
            for line in process.stdout:
                facts = json.loads(line)
                if "refused" in facts:
                    raise RefusedError(f"{plan.framework}: {facts['refused']}")
                if "row" in facts:
                    report.rows.append(Row.from_dict(facts["row"]))
                else:
                    on_progress(facts["at"], facts["done"])
            if process.wait():
                raise CrashedError(f"{plan.framework}: its process ended early\n{_tail(log)}")
        finally:
            process.kill()
            process.wait()
    report.seconds = time.monotonic() - started
    return report


def _environment(plan: Plan) -> dict[str, str]:
    threads = str(plan.threads)
    # What PyTorch, TensorFlow and XLA each take for the number of threads.
    variables = {
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "NPROC": threads,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if plan.device == "cpu":
        variables |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return os.environ | variables | dict(plan.registered.environment)


def _tail(log: TextIO) -> str:
    log.seek(0)
    return "\n".join(log.read().splitlines()[-15:])
