"""A process apart, for libraries that a hostile file may crash, hang or make eat memory.

Frameworks do not share a process either: importing two of them may crash. So each library has a
child process, started by the first file that needs it and kept for the next ones; it ends with
its parent. Requests and replies are lines of JSON over pipes (child.py has the other end), arrays
travel in a safetensors file that is deleted afterwards.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbam_core.containers import safetensors
from cbam_core.contents import CheckpointError, Contents, size_of

if TYPE_CHECKING:
    from cbam_core.containers import Container

# What a file may take: seconds, and for its size as slow a disk as there is.
SECONDS, BYTES_PER_SECOND = 20.0, 5e6
# What importing the library may take, which no file has any part in.
START_SECONDS = 300.0

_START = (
    "import json, sys; start = json.loads(sys.stdin.readline()); sys.path[:] = start['path']; "
    "from cbam_core.containers import child; child.serve(start['library'])"
)
# No devices: a weight file is read by the CPU, and a GPU's memory is others'.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
}  # fmt: skip


def read(container: Container, path: Path) -> Contents:
    """`path`, read by the process of the container's library.

    Raises:
        ImportError: the library can't be imported.
        OSError: the disk, on which the arrays are handed over, is full.
        CheckpointError: the file can't be read, or reading it took too long or crashed.
    """
    with tempfile.TemporaryDirectory(prefix="cbam-") as folder:
        exchange = Path(folder, "arrays")
        try:
            reply = _ask(container, "read", path, {"exchange": str(exchange)}, size_of(path))
        except (ChildProcessError, TimeoutError) as error:
            reason = f"is not a readable {container.about}: {error}"
            raise CheckpointError(path, reason) from None
        if reply.get("error"):
            raise CheckpointError(path, reply["reason"])
        arrays = safetensors.read(exchange).arrays.values()
    return Contents(
        dict(zip(reply["names"], arrays, strict=True)), reply["facts"], reply["metadata"]
    )


def write(container: Container, path: Path, contents: Contents) -> None:
    """Have `contents` written to `path` by the process of the container's library.

    Raises:
        ImportError: the library can't be imported.
        OSError: the disk is full, or the process crashed.
        ValueError: the container can't hold the contents.
    """
    # By number, since a name may be one that safetensors keeps for itself.
    numbered = {str(n): array for n, array in enumerate(contents.arrays.values())}
    with tempfile.TemporaryDirectory(prefix="cbam-") as folder:
        exchange = Path(folder, "arrays")
        safetensors.write(exchange, Contents(numbered))
        request = {
            "exchange": str(exchange),
            "names": list(contents.arrays),
            "facts": dict(contents.facts),
            "metadata": dict(contents.metadata),
        }
        reply = _ask(container, "write", path, request, size_of(exchange))
    if reply.get("error"):
        raise ValueError(reply["reason"])


class _Child:
    """One library's process, of which `ask` starts another where it has ended."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            return self._exchange(request, seconds)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> None:
        self.end()
        # -P: a torch.py in the current folder is imported only if the parent would import it.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT,
            encoding="ascii",
            start_new_session=True,
        )
        reply = self._exchange(
            {"library": self.library, "path": list(map(str, sys.path))}, START_SECONDS
        )
        if reply.get("error"):
            raise ImportError(f"{self.library} can't be imported: {reply['reason']}")

    def _exchange(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a line and wait for one; a process that gives none is ended.

        Raises:
            TimeoutError, ChildProcessError: it took too long, or ended by itself.
        """
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        begun = time.monotonic()
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if line.endswith("\n"):
                return json.loads(line)
        except BrokenPipeError:
            pass
        except BaseException:
            self.end()
            raise
        finally:
            timer.cancel()
        process.kill()
        code = process.wait()
        self.end()
        if time.monotonic() - begun >= seconds:
            raise TimeoutError(f"{self.library} took longer than {seconds:.0f} s over it")
        raise ChildProcessError(f"{self.library} crashed over it ({_how(code)})")


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


_children: dict[str, _Child] = {}


def _ask(
    container: Container, what: str, path: Path, request: dict[str, Any], size: int
) -> dict[str, Any]:
    library = container.requires[0] if container.requires else container.name
    child = _children.setdefault(library, _Child(library))
    seconds = SECONDS + size / BYTES_PER_SECOND
    # The current folder may be another one by now than the child's.
    about = {"do": what, "container": container.name, "file": os.path.abspath(path)}
    reply = child.ask({**about, "seconds": seconds, **request}, seconds)
    if reply.get("error") == "OSError":
        raise OSError(reply["errno"], reply["reason"])
    return reply


def _end_all() -> None:
    for child in _children.values():
        child.end()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    # A fork can't share its parent's pipes, so it starts children of its own.
    os.register_at_fork(after_in_child=_children.clear)
