"""Networks that public implementations ran, read from a file as their owner writes it."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest

import cbam_core
from cbam_core import containers
from cbam_core.contents import Contents
from tests.compare import assert_equal
from tests.recorded_networks import NETWORKS

LIMITS = {"float64": 1e-9, "float32": 1e-4}
# A change of its weights by 3e-8 of each moves these logits by 1.5e-4 of the largest, in float64.
ILL_CONDITIONED = {("luuuyi_resnet50_cbam", "float32"): 5e-4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """What is found in the file of a recorded network, by its name."""

    @functools.cache
    def read(name):
        network = NETWORKS[name]
        path = tmp_path_factory.mktemp(name) / "checkpoint.pth.tar"
        facts = {"epoch": 90} if network.nesting else {}
        contents = Contents(network.arrays(), facts, {})
        containers.write(path, contents, containers.CONTAINERS["torch"])
        return cbam_core.read(path)

    return read


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_the_recorded_ones(framework, checkpoint, name, dtype):
    recorded = NETWORKS[name]
    network = framework.build(recorded.factory, weights=checkpoint(name), dtype=dtype)
    logits = framework.call(network, recorded.pictures().astype(dtype))
    expected = recorded.results()["logits"].astype(dtype)
    limit = ILL_CONDITIONED.get((name, dtype), LIMITS[dtype])
    assert_equal({"logits": logits}, {"logits": expected}, limit)


@pytest.mark.parametrize("name", ["official_resnet18_cifar100", "luuuyi_resnet18_cbam"])
def test_every_stage_has_the_recorded_means(framework, checkpoint, name):
    recorded = NETWORKS[name]
    network = framework.build(
        recorded.factory, weights=checkpoint(name), features_only=True, dtype="float64"
    )
    _, *maps = framework.call(network, recorded.pictures().astype("float64"))
    means = {f"layer{n}_mean": y.mean((1, 2)) for n, y in enumerate(maps, 1)}
    expected = {name: array for name, array in recorded.results().items() if name in means}
    assert_equal(means, expected, 1e-9)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """The files of pytorchcv's cbam_resnet18, a network that nobody here wrote."""
    folder = tmp_path_factory.mktemp("pytorchcv")
    subprocess.run([sys.executable, "-m", "tests.pytorchcv_peer", folder], check=True)
    return folder


@pytest.mark.parametrize("dtype", LIMITS)
def test_agrees_with_pytorchcv_on_photographs(framework, peer, dtype):
    network = framework.build("resnet18", weights=peer / "network.pth", dtype=dtype)
    with np.load(peer / "arrays.npz") as file:
        pictures, expected = (file[name].astype(dtype) for name in ("pictures", "logits"))
    logits = framework.call(network, pictures)
    assert_equal({"logits": logits}, {"logits": expected}, LIMITS[dtype])
