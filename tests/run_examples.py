"""Run examples, each in a process of its own, of which all imports have been made before.

Reads [[module, ...], {name: code}] and writes {name: what it said} of those that failed. Each is a
copy of this process (os.fork), so that a framework is imported once for all and none sees another.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path


def main() -> None:
    modules, examples = json.load(sys.stdin)
    for module in modules:
        importlib.import_module(module)
    said = {name: _said(code) for name, code in examples.items()}
    print(json.dumps({name: text for name, text in said.items() if text is not None}))


def _said(code: str) -> str | None:
    """What the code printed, if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said.txt")
        child = os.fork()
        if child == 0:
            _run(code, Path(folder), said)
        _, status = os.waitpid(child, 0)
        return said.read_text()[-2000:] if status else None


def _run(code: str, folder: Path, said: Path) -> None:
    """Run the code in the folder and end the process."""
    output = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    status = 1
    try:
        Path("example.py").write_text(code)
        runpy.run_path("example.py", run_name="__main__")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
