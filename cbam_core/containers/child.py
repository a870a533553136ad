"""The process that apart.py starts: reads and writes files with one library until it is ended."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from cbam_core import containers
from cbam_core.containers import safetensors
from cbam_core.contents import CheckpointError, Contents, most_bytes, size_of

# Beyond what the library has when it is imported, and beyond what the file's size explains.
MEMORY = 512 << 20


def serve(library: str) -> None:
    """Answer requests from standard input, one a line, until it is closed."""
    requests, replies = _channels()
    try:
        importlib.import_module(library)
    except BaseException as error:
        _reply(replies, _failure(error))
        return
    _reply(replies, {})
    for line in requests:
        request = json.loads(line)
        # The parent ends a child that takes too long; this is for a parent that is no more.
        faulthandler.dump_traceback_later(request["seconds"] + 1, exit=True)
        try:
            reply = _ANSWERS[request["do"]](request)
        except (Exception, RecursionError, MemoryError) as error:
            reply = _failure(error)
        faulthandler.cancel_dump_traceback_later()
        _reply(replies, reply)


def _channels() -> tuple[IO[str], IO[str]]:
    """The pipes to the parent, out of reach of a library that reads or prints."""
    requests = os.fdopen(os.dup(0), encoding="ascii")
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return requests, replies


def _reply(replies: IO[str], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _read(request: dict[str, Any]) -> dict[str, Any]:
    path = Path(request["file"])
    _limit_memory(size_of(path) + most_bytes(path))
    contents = containers.read_here(containers.CONTAINERS[request["container"]], path)
    arrays = {str(n): array for n, array in enumerate(contents.arrays.values())}
    safetensors.write(Path(request["exchange"]), Contents(arrays))
    return {
        "names": list(contents.arrays),
        "facts": dict(contents.facts),
        "metadata": dict(contents.metadata),
    }


def _write(request: dict[str, Any]) -> dict[str, Any]:
    exchange = Path(request["exchange"])
    _limit_memory(4 * size_of(exchange))
    arrays = safetensors.read(exchange).arrays.values()
    named = dict(zip(request["names"], arrays, strict=True))
    contents = Contents(named, request["facts"], request["metadata"])
    container = containers.CONTAINERS[request["container"]]
    containers.module(container).write(Path(request["file"]), contents)
    return {}


_ANSWERS = {"read": _read, "write": _write}


def _failure(error: BaseException) -> dict[str, Any]:
    if isinstance(error, CheckpointError):
        return {"error": "CheckpointError", "reason": error.reason}
    if isinstance(error, OSError) and error.errno is not None:
        return {"error": "OSError", "reason": error.strerror, "errno": error.errno}
    return {"error": type(error).__name__, "reason": str(error) or type(error).__name__}


def _limit_memory(more: int) -> None:
    """Let this process have `more` bytes besides MEMORY and what it has now, where a platform can
    tell and limit it."""
    status = Path("/proc/self/status")
    if sys.platform != "linux" or not status.exists():
        return
    import resource

    data = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
    used = int(data.split()[1]) << 10
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY + more, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
