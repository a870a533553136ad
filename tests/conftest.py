"""Options of the whole suite, and where the tests of one framework run.

`pytest` alone runs everything: the files here, and through tests/test_frameworks.py one process
for each framework, since two frameworks, or two Keras backends, do not share a process.
`pytest tests/frameworks --framework torch` runs what such a process runs.
"""

from __future__ import annotations

import os
import warnings

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--framework",
        help="run tests/frameworks for one framework: torch, tf, keras-tensorflow, keras-jax, "
        "keras-torch, flax or linen",
    )


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--framework")
    if name and name.startswith("keras-"):
        os.environ["KERAS_BACKEND"] = name.removeprefix("keras-")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def pytest_ignore_collect(collection_path, config: pytest.Config) -> bool | None:
    inside = "frameworks" in collection_path.relative_to(config.rootpath).parts
    name = config.getoption("--framework")
    if inside and not name:
        return True
    if inside and collection_path.name.startswith("test_") and name:
        # test_keras.py, test_keras_backbones.py and so on are for every keras-*.
        owner = collection_path.stem.split("_")[1]
        return owner not in ("conformance", "backbones", "recorded", name, name.partition("-")[0])
    return None
