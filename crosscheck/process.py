"""The judge's side of a worker: the process of one framework."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from crosscheck import exchange
from crosscheck.frameworks import Framework


class RefusedError(RuntimeError):
    """A framework sees no such device as was asked for."""


class CrashedError(RuntimeError):
    """The process of a framework ended before it had run all passes."""


class Process:
    """The process of one framework, started when its results are asked for."""

    def __init__(
        self, framework: Framework, folder: Path, device: str, jobs: Sequence[str]
    ) -> None:
        self.framework, self.folder, self.device, self.jobs = framework, folder, device, jobs
        self.process: subprocess.Popen[str] | None = None
        self.stopped = False

    def results(self) -> Iterator[tuple[str, dict, dict]]:
        """(job, arrays, facts) of each pass, as they come."""
        if self.stopped:
            return
        name = self.framework.name
        missing = set(self.jobs)
        jobs, log = self.folder / f"{name}.jobs", self.folder / f"{name}.log"
        jobs.write_text("".join(f"{job}\n" for job in self.jobs))
        with jobs.open() as listed, log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crosscheck.worker", name, self.folder, self.device],
                stdin=listed,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment(),
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "refused":
                raise RefusedError(f"{name}: {rest}")
            if word == "job":
                missing.remove(rest)
                yield (rest, *self._read(rest))
        if (self.process.wait() or missing) and not self.stopped:
            raise CrashedError(f"{name}: its process ended early\n{_tail(log)}")

    def _environment(self) -> dict[str, str]:
        # The maps are small, and several processes run side by side: one thread for each is best.
        threads = {
            "OMP_NUM_THREADS": "1",
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        device = (
            {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
            if self.device == "cpu"
            # Several processes share one GPU, so none takes all of its memory in advance.
            else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        )
        # What is checked are the kernels, on maps however small, unless the user wants them off.
        kernels = {"CBAM_KERNELS": os.environ.get("CBAM_KERNELS", "always")}
        return os.environ | threads | device | kernels | dict(self.framework.environment)

    def _read(self, job: str) -> tuple[dict, dict]:
        path = self.folder / self.framework.name / job
        arrays, facts = exchange.read(path)
        path.unlink()
        return arrays, facts

    def stop(self) -> None:
        self.stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
