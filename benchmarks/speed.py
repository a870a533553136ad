"""All that `cbam bench` measures: `python benchmarks/speed.py FOLDER [OPTIONS OF THE COMMAND]`.

Blocks in every installed framework and ResNet50 in each, one after the other, since two runs side
by side would disturb each other; FOLDER gets a JSON file, a chart and the printed tables of each.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from crosscheck.benchmark.plan import MODES
from crosscheck.frameworks import FRAMEWORKS

NETWORK = "resnet50"


def run(framework: str, options: Sequence[str], file: Path) -> bool:
    """One run of the command, whose files have the name `file` and a suffix; whether it is good."""
    command = [sys.executable, "-m", "crosscheck", "bench", "--framework", framework, *options]
    files = ["--json", file.with_suffix(".json"), "--plot", file.with_suffix(".png")]
    with file.with_suffix(".txt").open("w") as printed:
        return subprocess.run([*command, *files], stdout=printed).returncode == 0


def main(folder: Path, options: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for framework in (name for name in MODES if not FRAMEWORKS[name].missing):
        for suffix, subject in (("", []), (f"-{NETWORK}", ["--network", NETWORK])):
            file = folder / f"{framework}{suffix}"
            print(file.with_suffix(".txt"), flush=True)
            if not run(framework, [*options, *subject], file):
                failed.append(file.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
