"""Options of the whole suite, and where the tests of one framework run.

`pytest` alone runs everything: the files here, and through tests/test_frameworks.py one process
for each framework, since two frameworks, or two Keras backends, do not share a process.
`pytest tests/frameworks --framework torch` runs what such a process runs.
"""

from __future__ import annotations

import os
import shutil
import warnings

import pytest

from crosscheck.frameworks import FRAMEWORKS
from tests.compiling import QUICKLY


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--framework",
        help="run tests/frameworks for one framework: torch, tf, keras-tensorflow, keras-jax, "
        "keras-torch, flax or linen",
    )
    parser.addoption(
        "--fuzz", type=int, default=20_000, help="damaged files that tests/core/test_fuzz.py reads"
    )


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--framework")
    if name and name.startswith("keras-"):
        os.environ["KERAS_BACKEND"] = name.removeprefix("keras-")
    if name:
        # Maps of tests are small.
        os.environ.setdefault("CBAM_KERNELS", "always")
    for variable, value in QUICKLY.items():
        os.environ.setdefault(variable, value)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = {
        "compiler": FRAMEWORKS["torch-compile"].missing == ["a C++ compiler"],
        "browser": not all(map(shutil.which, ("chromium", "chromedriver"))),
    }
    for marker in (marker for marker, is_absent in absent.items() if is_absent):
        without = [item for item in items if item.get_closest_marker(marker)]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
    # The longest first: two workers then end together.
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_frameworks.py"))


def pytest_ignore_collect(collection_path, config: pytest.Config) -> bool | None:
    inside = "frameworks" in collection_path.relative_to(config.rootpath).parts
    name = config.getoption("--framework")
    if inside and not name:
        return True
    if inside and collection_path.name.startswith("test_") and name:
        # test_keras.py, test_keras_backbones.py and so on are for every keras-*, those without a
        # framework's name for all.
        owner = collection_path.stem.split("_")[1]
        shared = (
            "backbones", "conformance", "determinism", "digits", "explain", "files", "identify",
            "kernels", "precision", "recorded", "training",
        )  # fmt: skip
        return owner not in (*shared, name, name.partition("-")[0])
    return None
