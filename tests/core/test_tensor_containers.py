"""The containers of Keras, TensorFlow and orbax, beyond what test_containers.py asks of all."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

import cbam_core
from cbam_core import CBAMSpec, CheckpointError, containers
from cbam_core.containers import CONTAINERS
from cbam_core.contents import Contents
from tests import recorded
from tests.core import hostile_hdf5
from tests.core.hostile_orbax import orbax_folders
from tests.core.hostile_tensorflow import LATEST, tensorflow_files, valid

CHECKPOINTS = Path(__file__).parent.parent / "data" / "checkpoints"


def _fill(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        containers.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(reason, caught.value.reason, re.DOTALL), caught.value.reason


@pytest.mark.parametrize("name", [folder.name for folder in sorted(CHECKPOINTS.iterdir())])
def test_recorded_files_hold_the_recorded_arrays(name):
    weights = CHECKPOINTS / name / "weights.h5"
    found = containers.read(weights if weights.exists() else weights.parent).arrays
    known = {
        key.removeprefix("weights/").removesuffix(":0"): array
        for key, array in recorded.load(name).items()
        if key.startswith("weights/")
    }
    assert set(found) == set(known)
    assert all(found[n].tobytes() == known[n].tobytes() for n in known)


def test_keras_2_keeps_the_order_of_the_layers():
    path = CHECKPOINTS / "kobiso_keras2_cbam" / "weights.h5"
    found = containers.read(path)
    assert list(found.arrays) == [
        "dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias", "conv2d/kernel",
    ]  # fmt: skip
    assert found.metadata["backend"] == "tensorflow"


def _write(path: Path, fill) -> Contents:
    path.write_bytes(hostile_hdf5.hdf5(fill))
    return containers.read(path)


def test_weights_of_one_name_begin_with_their_layer_s(tmp_path):
    def fill(root):
        root.attrs["layer_names"] = [b"b", b"a"]
        for layer in ("a", "b"):
            root[f"{layer}/kernel:0"] = np.ones(1)
            root[layer].attrs["weight_names"] = [b"kernel:0"]

    assert list(_write(tmp_path / "a.h5", fill).arrays) == ["b/kernel", "a/kernel"]


def test_a_whole_model_s_optimizer_and_long_lists_are_read(tmp_path):
    """Keras cuts a list of names into parts where it does not fit into an attribute."""

    def fill(root):
        model = root.create_group("model_weights")
        for number in range(3):
            model.attrs[f"layer_names{number}"] = [f"dense_{number}".encode()]
            model[f"dense_{number}/dense_{number}/kernel:0"] = np.full(1, number)
            model[f"dense_{number}"].attrs["weight_names"] = [f"dense_{number}/kernel:0"]
        root["optimizer_weights/adam/m:0"] = np.ones(1)
        root.attrs["model_config"] = "{" * 100

    found = _write(tmp_path / "a.h5", fill)
    assert list(found.arrays) == [
        "dense_0/kernel", "dense_1/kernel", "dense_2/kernel", "optimizer_weights/adam/m",
    ]  # fmt: skip
    assert found.metadata == {}


def test_keras_3_s_numbers_count_and_what_is_no_number_is_left(tmp_path):
    def fill(root):
        hostile_hdf5.valid(root)
        root["text"] = "abc"
        root["texts"] = np.array(["a", "b"], object)
        root["reference"] = root["layers"].ref
        root["record"] = np.zeros(2, [("x", "f4")])
        root["none"] = h5py.Empty("f4")
        root["seed/vars/0"] = np.array([1, 2], np.uint32)
        root["half/vars/0"] = np.array([0x3F80, 0xC000], np.uint16).view("V2")
        root["half/vars/0"].attrs["dtype"] = "bfloat16"
        root["raw"] = np.zeros(3, "V2")

    found = _write(tmp_path / "a.weights.h5", fill).arrays
    assert list(found) == [
        "half/vars/0", "layers/dense/vars/0", "layers/dense_2/vars/0", "layers/dense_10/vars/0",
        "seed/vars/0",
    ]  # fmt: skip
    assert found["half/vars/0"].dtype == np.float32
    assert found["half/vars/0"].tolist() == [1.0, -2.0]


def test_a_keras_archive_is_read_and_none_of_its_code_is_run(tmp_path):
    code = b'{"class_name": "Lambda", "config": {"function": "__import__(\'os\').abort()"}}'
    path = tmp_path / "a.keras"
    path.write_bytes(hostile_hdf5.keras(config=code))
    found = containers.read(path)
    assert list(found.arrays) == [
        "layers/dense/vars/0", "layers/dense_2/vars/0", "layers/dense_10/vars/0",
    ]  # fmt: skip
    assert found.facts == {"class_name": "Lambda", "keras_version": "3.15.1"}


@pytest.mark.parametrize(
    ("name", "names"),
    [("keras3", ["a", "a/b"])]
    + [(name, [one]) for name in ("keras2", "keras3") for one in ("a//b", "a/", "./a")],
)
def test_names_that_hdf5_can_not_hold_are_refused(tmp_path, name, names):
    arrays = {one: np.zeros(1) for one in names}
    with pytest.raises(ValueError, match=re.escape(repr(names[-1]))):
        containers.write(tmp_path / "a.h5", Contents(arrays), CONTAINERS[name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["keras", "savedmodel"])
def test_what_only_its_framework_can_write_is_refused_with_what_to_do(tmp_path, name):
    spec = CBAMSpec(8)
    cbam_core.write(tmp_path / "a.safetensors", cbam_core.initial_weights(spec), spec)
    with pytest.raises(ValueError, match=r"can't be written; it .* load it there"):
        cbam_core.convert(tmp_path / "a.safetensors", tmp_path / f"b.{name}")


def test_keras_files_are_read_and_written_without_a_framework(tmp_path):
    """The process apart finds modules where its parent does."""
    for module in ("torch", "tensorflow", "jax", "flax", "keras", "tf_keras", "orbax"):
        (tmp_path / f"{module}.py").write_text(f"raise SystemExit('{module} is imported')")
    (tmp_path / "a.keras").write_bytes(hostile_hdf5.keras())
    code = """
    import sys
    sys.path.insert(0, sys.argv[1])
    import numpy
    from cbam_core import containers
    assert len(containers.read(sys.argv[1] + "/a.keras").arrays) == 3
    for name in ("keras2", "keras3"):
        path = sys.argv[1] + "/" + name
        contents = containers.Contents({"a": numpy.ones(1)})
        containers.write(path, contents, containers.CONTAINERS[name])
        assert list(containers.read(path).arrays) == ["a"]
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path]
    subprocess.run(command, check=True, cwd=CHECKPOINTS.parents[2])


@pytest.mark.parametrize("name", ["model.ckpt", "model.ckpt.index", ""])
def test_a_checkpoint_is_named_by_its_prefix_its_index_or_its_folder(tmp_path, name):
    _fill(tmp_path / "folder", valid())
    found = containers.read(tmp_path / "folder" / name).arrays
    assert {name: array.tolist() for name, array in found.items()} == {
        "block1/ch_at/mlp_0/bias": [0.0, 1.0],
        "block1/ch_at/mlp_0/kernel": [[2.0, 3.0], [4.0, 5.0]],
    }


@pytest.mark.parametrize("part", ["data-00000-of-00001", "meta"])
def test_a_part_of_a_checkpoint_is_called_one(tmp_path, part):
    folder = _fill(tmp_path / "run", valid())
    (folder / "model.ckpt.meta").write_bytes(b"a graph")
    reason = f"is a part of a TensorFlow checkpoint; pass {folder / 'model.ckpt'}$"
    _refused(folder / f"model.ckpt.{part}", reason)


def test_the_latest_checkpoint_is_found_where_the_folder_has_been_moved(tmp_path):
    moved = LATEST.replace(b"model.ckpt", b"/home/somebody/run/model.ckpt")
    _fill(tmp_path / "folder", valid() | {"checkpoint": moved})
    assert len(containers.read(tmp_path / "folder").arrays) == 2


@pytest.mark.parametrize("name", tensorflow_files())
def test_a_hostile_checkpoint_is_a_checkpoint_error(tmp_path, name):
    make, reason = tensorflow_files()[name]
    _refused(_fill(tmp_path / "folder", make()), reason)


@pytest.mark.parametrize("name", ["an index that is cut off", "more numbers than bytes"])
def test_a_hostile_savedmodel_is_a_checkpoint_error(tmp_path, name):
    make, reason = tensorflow_files()[name]
    files = {file.replace("model.ckpt", "variables"): data for file, data in make().items()}
    _fill(tmp_path / "folder" / "variables", files)
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"\xff" * 99)
    _refused(tmp_path / "folder", reason.replace("checkpoint", "SavedModel"))


@pytest.mark.parametrize("form", ["tree", "plain"])
def test_orbax_trees_are_read(orbax_files, form):
    found = containers.read(orbax_files / form)
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        "dense_9": [1.0], "dense_10": [1.0], "half": [0.5, -2.0], "layers/0": [0.0],
        "layers/1": [1.0], "nnx/kernel": [1.0, 1.0],
        "params/ca/kernel": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "step": 7,
    }  # fmt: skip
    assert found.arrays["half"].dtype == np.float32
    assert found.facts == {"arch": "resnet18"}


def test_orbax_steps_and_items_are_read(orbax_files):
    latest = containers.read(orbax_files / "manager")
    assert (latest.facts, latest.arrays["a"].tolist()) == ({"step": 12}, [12.0, 12.0])
    earlier = containers.read(orbax_files / "manager" / "5")
    assert (earlier.facts, earlier.arrays["a"].tolist()) == ({}, [5.0, 5.0])
    items = containers.read(orbax_files / "items")
    assert {name: array.tolist() for name, array in items.arrays.items()} == {
        "opt_state/a": [1.0, 1.0], "params/a": [0.0, 0.0],
    }  # fmt: skip


@pytest.mark.parametrize("name", orbax_folders())
def test_a_hostile_orbax_directory_is_a_checkpoint_error(tmp_path, orbax_files, name):
    spoil, reason = orbax_folders()[name]
    shutil.copytree(orbax_files / "plain", tmp_path / "folder")
    spoil(tmp_path / "folder")
    _refused(tmp_path / "folder", reason)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_an_orbax_directory_whose_files_are_cut_off_is_a_checkpoint_error(
    tmp_path, orbax_files, part
):
    shutil.copytree(orbax_files / "tree", tmp_path / "folder")
    for file in (tmp_path / "folder").rglob("*"):
        if file.is_file() and file.name != "_METADATA":
            data = file.read_bytes()
            file.write_bytes(data[: int(part * len(data))])
    _refused(tmp_path / "folder", "not a readable orbax directory")
