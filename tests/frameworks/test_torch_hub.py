"""cbam_torch on the Hugging Face Hub and on torch.hub, both without a network."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
import torch

import cbam_core
import cbam_torch
from cbam_core import reference, reference_network
from cbam_torch import hub
from crosscheck import trained
from tests import specs

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def network():
    architecture, weights = trained.network()
    network = cbam_torch.Backbone(architecture)
    cbam_torch.load_canonical(network, weights)
    return network.eval()


def test_a_network_comes_back_from_a_folder(network, tmp_path):
    hub.save_pretrained(network, tmp_path / "new" / "folder")
    again = hub.from_pretrained(tmp_path / "new" / "folder", dtype=torch.float64)
    assert not again.training
    architecture, weights = trained.network()
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8))
    with torch.no_grad():
        logits = again(torch.from_numpy(x)).numpy()
    expected = reference_network.run(architecture, weights, np.moveaxis(x, 1, -1)).output
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["everything", "se"])
def test_a_block_comes_back_from_a_folder(tmp_path, name):
    spec, weights = specs.SPECS[name], specs.weights(specs.SPECS[name])
    block = cbam_torch.CBAM.from_spec(spec, dtype=torch.float64)
    cbam_torch.load_canonical(block, weights)
    hub.save_pretrained(block, tmp_path)
    again = hub.from_pretrained(str(tmp_path), dtype=torch.float64)
    assert again.spec == spec
    x = specs.feature_map(spec)
    y = again(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).detach().numpy()
    expected = reference.run(spec, cbam_torch.to_canonical(again), x).output
    np.testing.assert_allclose(np.moveaxis(y, 1, -1), expected, rtol=0, atol=1e-12)


def test_the_file_is_the_one_that_every_package_reads(network, tmp_path):
    hub.save_pretrained(network, tmp_path)
    (file,) = tmp_path.iterdir()
    found = cbam_core.read(file)
    assert (found.dialect, found.architecture) == ("canonical", network.architecture)
    weights = cbam_torch.to_canonical(network)
    assert {n: a.tobytes() for n, a in safetensors.numpy.load_file(file).items()} == {
        n: a.tobytes() for n, a in weights.items()
    }


def test_a_network_is_pushed_with_a_card_that_it_had_not(monkeypatch, network, tmp_path):
    """What the Hub would be asked, without asking it."""
    asked = {}

    class Api:
        def __init__(self, token):
            asked["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            asked["repo"] = repo_id, private, exist_ok
            return SimpleNamespace(repo_id=f"somebody/{repo_id}")

        def create_branch(self, repo_id, branch, exist_ok):
            asked["branch"] = repo_id, branch, exist_ok

        def file_exists(self, repo_id, filename, revision):
            return False

        def upload_folder(self, repo_id, folder_path, commit_message, revision):
            asked["to"] = repo_id, revision
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    address = hub.push_to_hub(network, "digits", private=True, token="secret", branch="next")
    assert address == "https://hub/commit"
    assert asked == {
        "token": "secret",
        "repo": ("digits", True, True),
        "branch": ("somebody/digits", "next", True),
        "to": ("somebody/digits", "next"),
    }
    assert hub.from_pretrained(tmp_path / "uploaded").architecture == network.architecture
    card = (tmp_path / "uploaded" / "README.md").read_text()
    assert 'hub.from_pretrained("somebody/digits")' in card
    assert repr(network.architecture) in card


def test_a_repository_is_downloaded_as_it_is_asked_for(monkeypatch, network, tmp_path):
    hub.save_pretrained(network, tmp_path)
    asked = []

    def download(repo_id, filename, **options):
        asked.append((repo_id, filename, options))
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    again = hub.from_pretrained("somebody/digits", revision="v1", local_files_only=True)
    assert again.architecture == network.architecture
    ((repo_id, filename, options),) = asked
    assert (repo_id, filename) == ("somebody/digits", "model.safetensors")
    assert (options["revision"], options["local_files_only"]) == ("v1", True)


def test_without_the_hub_a_folder_is_read_and_a_repository_names_what_to_install(
    monkeypatch, network, tmp_path
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    hub.save_pretrained(network, tmp_path)
    hub.from_pretrained(tmp_path)
    for call in (
        lambda: hub.from_pretrained("somebody/digits"),
        lambda: hub.push_to_hub(network, "somebody/digits"),
    ):
        with pytest.raises(ImportError, match=r'not installed; pip install "cbam\[hub\]"'):
            call()


def test_what_can_not_be_loaded_is_not_saved(network, tmp_path):
    with pytest.raises(TypeError, match="module=Linear holds no canonical weights; pass a CBAM"):
        hub.save_pretrained(torch.nn.Linear(2, 2), tmp_path)
    headless = cbam_torch.Backbone(network.architecture, features_only=True)
    with pytest.raises(ValueError, match=r"head\.linear\.kernel"):
        hub.save_pretrained(headless, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        hub.from_pretrained(tmp_path)


def test_what_is_in_no_folder_or_has_no_head_is_refused_by_name(network, tmp_path):
    hub.save_pretrained(network, tmp_path)
    file = tmp_path / "model.safetensors"
    with pytest.raises(NotADirectoryError, match=r"is a file; pass the folder of a model\.safe"):
        hub.from_pretrained(file)
    with safetensors.safe_open(file, "numpy") as opened:
        facts = opened.metadata()
    arrays = safetensors.numpy.load_file(file)
    kept = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    safetensors.numpy.save_file(kept, file, facts)
    with pytest.raises(cbam_core.CheckpointError, match=r"has no head\.linear\.kernel, head\."):
        hub.from_pretrained(tmp_path)
    features = hub.from_pretrained(tmp_path, features_only=True)
    assert set(cbam_torch.to_canonical(features)) == set(kept)


def test_torch_hub_builds_from_a_clone(tmp_path):
    """In a process of its own, and in a folder of its own: the packages are those of the clone."""
    names = runpy.run_path(str(ROOT / "hubconf.py"))["__all__"]
    assert set(names) == {"CBAM", *cbam_core.ARCHITECTURES}
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copy(ROOT / "hubconf.py", clone)
    for package in ("cbam_core", "cbam_torch"):
        shutil.copytree(ROOT / package, clone / package, ignore=shutil.ignore_patterns("*.so"))
    code = f"""
import torch
clone = {str(clone)!r}
network = torch.hub.load(clone, "resnet18", source="local", attention="cbam", num_classes=10)
print(sum(p.numel() for p in network.parameters()))
print(torch.hub.load(clone, "CBAM", 64, source="local", reduction=8))
import cbam_core, cbam_torch
assert cbam_core.__file__.startswith(clone) and cbam_torch.__file__.startswith(clone)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parameters, block = done.stdout.splitlines()
    network = cbam_torch.resnet18(attention="cbam", num_classes=10)
    assert int(parameters) == sum(p.numel() for p in network.parameters())
    assert block == "CBAM(64, reduction=8)"
