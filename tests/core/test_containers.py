"""Every container: what is written is read, whoever wrote it; what lies is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy

from cbam_core import CheckpointError, containers
from cbam_core.containers import CONTAINERS, apart
from cbam_core.contents import Contents, by_number
from tests.core import hostile, hostile_hdf5

ROOT = Path(__file__).parent.parent.parent
ARRAYS = {
    "state_dict/module.conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "state_dict/module.half": np.array([[0.1, -2.5]], np.float16),
    "state_dict/module.double": np.array([np.pi, -0.0, np.nan, np.inf]),
    "state_dict/module.transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "state_dict/module.num_batches_tracked": np.array(7),
    "state_dict/module.scalar": np.array(0.5, np.float32),
    "state_dict/module.empty": np.zeros((0, 3), np.float32),
    "optimizer/state/0/momentum": np.ones(3),
    "a": np.zeros(1),
}
# A leaf with the name of a path, empty parts of a path, and dtypes that no weight has.
ODD = {
    "path": np.zeros(1), "path/of/a": np.ones(1), "path/of/b": np.ones(2), "a//b/": np.ones(1),
    "ünï code.": np.arange(5, dtype=np.uint8), "mask": np.array([True, False]),
    "file": np.arange(2, dtype=np.int16), "big endian": np.arange(3, dtype=">f8"),
}  # fmt: skip
FACTS = {
    "epoch": 90, "best": 77.5, "arch": "res/net", "done": True, "none": None, "args/lr": 0.1,
}  # fmt: skip
METADATA = {"cbam_format": "1", "spec": '{"channels": 8}', "ü": "ï"}
WRITABLE = [name for name, container in CONTAINERS.items() if container.writes is True]
OURS = ["safetensors", "torch", "npz", "msgpack"]
HOSTILE = hostile.FILES | {
    ".weights.h5": hostile_hdf5.hdf5_files, ".keras": hostile_hdf5.keras_files
}  # fmt: skip
# Where names have no order they are sorted.
SORTED = ("keras3", "tensorflow", "orbax")


def _check_same(found: Contents, arrays: dict[str, np.ndarray], *, is_sorted: bool = False) -> None:
    assert list(found.arrays) == (sorted(arrays, key=by_number) if is_sorted else list(arrays))
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert found.arrays[name].dtype == native.dtype, name
        assert found.arrays[name].shape == array.shape, name
        assert found.arrays[name].tobytes() == native.tobytes(), name
        assert found.arrays[name].flags.writeable, name


def _python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("name", WRITABLE)
def test_round_trip_keeps_names_order_and_bits(tmp_path, name):
    container = CONTAINERS[name]
    path = tmp_path / f"weights{container.endings[0]}"
    # orbax holds no array without numbers.
    arrays = {n: a for n, a in ARRAYS.items() if a.size or name != "orbax"}
    containers.write(path, Contents(arrays), container)
    assert containers.recognise(path).about == container.about
    _check_same(containers.read(path), arrays, is_sorted=name in SORTED)


@pytest.mark.parametrize("name", OURS)
def test_facts_metadata_and_odd_names_travel_along(tmp_path, name):
    path = tmp_path / "weights"
    containers.write(path, Contents(ODD, FACTS, METADATA), CONTAINERS[name])
    assert containers.recognise(path) is CONTAINERS[name]
    found = containers.read(path)
    _check_same(found, ODD)
    assert (found.facts, found.metadata) == (FACTS, METADATA)


@pytest.mark.parametrize("name", ["torch", "msgpack"])
def test_an_array_and_a_fact_of_one_name_are_not_written(tmp_path, name):
    contents = Contents({"epoch": np.zeros(1)}, {"epoch": 3})
    with pytest.raises(ValueError, match="epoch: an array and a fact have this name"):
        containers.write(tmp_path / "weights", contents, CONTAINERS[name])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["zip", "before zip"])
def test_pytorch_s_own_files_are_read(torch_files, form):
    found = containers.read(torch_files / form / "valid.pth.tar")
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {
        "a.weight": weight, "half": weight.astype(np.float16), "bfloat16": weight,
        "double": weight.astype(np.float64), "transposed": weight.T, "part": weight[1:],
        "tied": weight, "num_batches_tracked": np.array(7), "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    expected = {f"state_dict/module.{name}": array for name, array in expected.items()}
    expected["best_loss"] = np.array(0.5, np.float32)
    expected["optimizer/state/0/momentum_buffer"] = np.ones((2, 3), np.float32)
    expected["generator"] = np.array([[1, 3], [2, 4]])
    _check_same(found, expected)
    facts = {"epoch": 90, "arch": "resnet50", "best_acc": 77.5, "args/lr": 0.1,
             "args/nested/arch": "x", "dtype": "torch.float32", "scheduler": None,
             "optimizer/param_groups/0/momentum": 0.9}  # fmt: skip
    assert facts.items() <= found.facts.items()


def test_the_libraries_read_what_is_written(tmp_path):
    contents = Contents(ARRAYS, {"epoch": 90}, METADATA)
    for name in OURS:
        containers.write(tmp_path / name, contents, CONTAINERS[name])
    _check_same(Contents(dict(np.load(tmp_path / "npz"))), ARRAYS | {
        "__cbam__": np.load(tmp_path / "npz")["__cbam__"]})  # fmt: skip
    found = safetensors.numpy.load_file(tmp_path / "safetensors")
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in ARRAYS.items()}
    _python(
        """
        import sys, numpy, torch
        found = torch.load(sys.argv[1] + "/torch", weights_only=True)
        arrays = numpy.load(sys.argv[1] + "/npz")
        assert list(found) == ["state_dict", "optimizer", "a", "epoch", "__cbam__"], list(found)
        for name, tensor in found["state_dict"].items():
            assert tensor.numpy().tobytes() == arrays["state_dict/" + name].tobytes(), name
            assert tensor.untyped_storage().nbytes() == tensor.nbytes, name
        """,
        tmp_path,
    )
    _python(
        """
        import sys, numpy, flax.serialization
        found = flax.serialization.msgpack_restore(open(sys.argv[1] + "/msgpack", "rb").read())
        arrays = numpy.load(sys.argv[1] + "/npz")
        assert list(found) == ["state_dict", "optimizer", "a", "epoch", "__cbam__"], list(found)
        for name, array in found["state_dict"].items():
            assert array.tobytes() == arrays["state_dict/" + name].tobytes(), name
            assert array.shape == arrays["state_dict/" + name].shape, name
        """,
        tmp_path,
    )


def test_flax_s_own_files_are_read(tmp_path):
    _python(
        """
        import sys, numpy, jax.numpy as jnp, flax.serialization
        from flax import nnx
        flax.serialization.MAX_CHUNK_SIZE = 64
        state = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
        tree = {
            "pure": nnx.to_pure_dict(state),
            "valued": {"kernel": {"value": jnp.ones(2)}, "value": {"a": 1}},
            "big": jnp.arange(100.0).reshape(10, 10),
            "half": jnp.ones(3, jnp.bfloat16) / 3,
            "scalar": numpy.float32(2), "step": 7, "layers": {0: jnp.zeros(1), 1: jnp.ones(1)},
        }
        with open(sys.argv[1], "wb") as file:
            file.write(flax.serialization.msgpack_serialize(tree))
        """,
        tmp_path / "flax.msgpack",
    )
    found = containers.read(tmp_path / "flax.msgpack")
    assert set(found.arrays) == {
        "pure/bias", "pure/kernel", "valued/kernel", "big", "half", "scalar", "layers/0",
        "layers/1",
    }  # fmt: skip
    assert np.array_equal(found.arrays["big"], np.arange(100.0).reshape(10, 10))
    assert found.arrays["half"].dtype == np.float32
    assert np.array_equal(found.arrays["half"], np.full(3, ml_dtypes.bfloat16(1 / 3), np.float32))
    assert found.arrays["scalar"].shape == ()
    assert found.facts == {"valued/value/a": 1, "step": 7}


def test_an_array_too_large_for_an_extension_is_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("cbam_core.containers.msgpack._MAX_PIECE", 100)
    arrays = {"a": np.arange(99.0).reshape(3, 33), "b": np.zeros(12)}
    containers.write(tmp_path / "a", Contents(arrays), CONTAINERS["msgpack"])
    assert list(msgpack.unpackb((tmp_path / "a").read_bytes())["a"]["chunks"]) == list("012345678")
    _check_same(containers.read(tmp_path / "a"), arrays)


def test_bfloat16_in_safetensors_is_read_as_float32(tmp_path):
    rounded = (np.arange(7) / 7).astype(ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"a": rounded}, tmp_path / "a.safetensors")
    found = containers.read(tmp_path / "a.safetensors").arrays["a"]
    assert found.dtype == np.float32
    assert np.array_equal(found, rounded.astype(np.float32))


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        containers.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(reason, caught.value.reason, re.DOTALL), f"{path}: {caught.value.reason}"


@pytest.mark.parametrize("ending", HOSTILE)
def test_a_hostile_file_is_a_checkpoint_error(tmp_path, ending):
    touched = tmp_path / "touched"
    for name, (data, reason) in HOSTILE[ending](touched).items():
        path = tmp_path / f"{name}{ending}"
        path.write_bytes(data() if callable(data) else data)
        _refused(path, reason)
    assert not touched.exists()


@pytest.mark.parametrize("form", ["zip", "before zip"])
def test_a_hostile_pytorch_file_is_a_checkpoint_error(torch_files, form):
    reasons = json.loads((torch_files / form / "reasons.json").read_text())
    del reasons["valid"]
    for name, reason in reasons.items():
        _refused(torch_files / form / f"{name}.pth.tar", reason)
    assert not (torch_files / "touched").exists()


def test_a_pytorch_file_without_check_sums_is_read(torch_files):
    found = containers.read(torch_files / "without_sums.pth").arrays
    _check_same(containers.read(torch_files / "zip" / "valid.pth.tar"), dict(found))


def test_no_environment_makes_a_pickle_s_code_run(torch_files, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr(apart, "_children", {})
    _refused(torch_files / "zip" / "code.pth.tar", "holds code")
    apart._end_all()
    assert not (torch_files / "touched").exists()


def test_torchscript_is_named(torch_files):
    _refused(torch_files / "script.pt", "TorchScript, a program with its weights inside")


@pytest.mark.parametrize("form", ["zip", "before zip"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_pytorch_file_that_is_cut_off_is_a_checkpoint_error(tmp_path, torch_files, form, part):
    data = (torch_files / form / "valid.pth.tar").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: int(part * len(data))])
    _refused(tmp_path / "cut.pth", "not a readable PyTorch file")


MEMBERS = {
    "a member that is compressed": (
        lambda m: hostile.Member(m.name, m.data, deflated=True), "is compressed, which PyTorch"
    ),
    "members twice": (lambda m: hostile.Member("a/data.pkl", m.data), "have one name"),
    "a path upwards": (lambda m: hostile.Member(f"a/../{m.name}", m.data), "leaves the archive"),
    "a larger member": (
        lambda m: hostile.Member(m.name, m.data, claims=1 << 31), "more bytes than the file has"
    ),
    "a shorter member": (
        lambda m: hostile.Member(m.name, m.data[:8] if "/data/" in m.name else m.data),
        "a tensor claims 24 bytes, and no member has that many",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMBERS)
def test_a_pytorch_archive_that_lies_is_a_checkpoint_error(tmp_path, torch_files, name):
    change, reason = MEMBERS[name]

    with zipfile.ZipFile(torch_files / "zip" / "valid.pth.tar") as opened:
        members = [hostile.Member(n, opened.read(n)) for n in opened.namelist()]
    (tmp_path / "a.pth").write_bytes(hostile.archive(*map(change, members)))
    _refused(tmp_path / "a.pth", reason)


@pytest.mark.parametrize("ending", [e for c in CONTAINERS.values() for e in c.endings])
def test_something_else_is_a_checkpoint_error(tmp_path, ending):
    for name, (data, reason) in hostile.elsewhere().items():
        path = tmp_path / f"{name}{ending}"
        path.write_bytes(data)
        _refused(path, reason)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    _refused(tmp_path / "a.npz", "is neither a file nor a folder")


def test_reading_imports_no_framework(tmp_path, torch_files):
    for name in ("safetensors", "npz"):
        containers.write(tmp_path / name, Contents(ARRAYS), CONTAINERS[name])
    frameworks = ("torch", "tensorflow", "h5py", "jax", "flax", "keras", "orbax", "msgpack")
    _python(
        f"""
        import sys
        from cbam_core import containers
        containers.read(sys.argv[2])
        assert not set({frameworks}) & set(sys.modules)
        sys.modules.update(dict.fromkeys({frameworks}))  # From here on no import finds them.
        for name in ("safetensors", "npz"):
            containers.read(sys.argv[1] + "/" + name)
        """,
        tmp_path,
        torch_files / "zip" / "valid.pth.tar",
    )


@pytest.mark.parametrize(
    ("name", "extra"), [(n, c.requires[1]) for n, c in CONTAINERS.items() if c.requires]
)
def test_a_library_that_is_absent_is_an_error_that_names_the_extra(
    tmp_path, monkeypatch, name, extra
):
    container = CONTAINERS[name]
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    monkeypatch.setattr(containers, "recognise", lambda path: container)
    (tmp_path / "a").touch()
    with pytest.raises(ImportError, match=re.escape(f'pip install "cbam[{extra}]"')):
        containers.read(tmp_path / "a")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The folder of a torch that does what a file says."""
    (tmp_path / "torch.py").write_text(
        """
import fcntl, os, pathlib, sys, time
print("chatter", flush=True)
os.write(2, b"chatter")
lock = open(pathlib.Path(__file__).with_name("lock"), "w")
fcntl.flock(lock, fcntl.LOCK_SH)
class Tensor: ...
class dtype: ...
class device: ...
class serialization:
    def safe_globals(self): return open(os.devnull)
float16 = float32 = float64 = None
def load(path, **_):
    print("chatter", flush=True)
    text = open(path).read()
    if text == "crash": os.abort()
    if text == "exit": os._exit(3)
    if text == "hang":
        pathlib.Path(path).with_name("hangs").touch()
        time.sleep(1000)
    if text == "memory": bytearray(1 << 40)
    from cbam_core.containers.standins import Array
    return {"pid": os.getpid(), "parent": os.getppid(), "array": Array()}
"""
    )
    monkeypatch.setattr(apart, "_children", {})
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    apart._end_all()


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("crash", r"torch crashed over it \(SIGABRT\)"),
        ("exit", r"torch crashed over it \(exit code 3\)"),
        ("hang", "torch took longer than 1 s over it"),
        ("memory", "MemoryError"),
    ],
)
def test_a_library_that_fails_is_a_checkpoint_error_and_the_next_file_is_read(
    library, monkeypatch, does, reason
):
    (library / "good.pth").write_text("good")
    (library / "bad.pth").write_text(does)
    first = containers.read(library / "good.pth").facts
    monkeypatch.setattr(apart, "SECONDS", 1.0)
    _refused(library / "bad.pth", reason)
    monkeypatch.setattr(apart, "SECONDS", 20.0)
    after = containers.read(library / "good.pth").facts
    assert (after["pid"] == first["pid"]) == (does == "memory")
    assert containers.read(library / "good.pth").facts == after


def test_a_library_that_can_not_be_imported_is_an_import_error(library):
    (library / "torch.py").write_text("raise OSError('libcudart.so is missing')")
    (library / "good.pth").write_text("good")
    with pytest.raises(ImportError, match=r"torch can't be imported: libcudart\.so is missing"):
        containers.read(library / "good.pth")


@pytest.mark.parametrize("does", [containers.read, lambda path: containers.write(
    path, Contents(ARRAYS), CONTAINERS["torch"])])  # fmt: skip
def test_a_full_disk_is_no_fault_of_the_file(library, monkeypatch, does):
    (library / "good.pth").write_text("good")
    full = {"error": "OSError", "errno": errno.ENOSPC, "reason": "No space left on device"}
    monkeypatch.setattr(apart._Child, "ask", lambda *_: full)
    with pytest.raises(OSError, match="No space left on device"):
        does(library / "good.pth")


def test_a_module_in_the_current_folder_is_not_imported(library, monkeypatch):
    (library / "good.pth").write_text("good")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(library)])
    monkeypatch.chdir(library)
    _refused(library / "good.pth", "pickle is damaged")


def test_threads_and_forks_do_not_disturb_one_another(library):
    (library / "good.pth").write_text("good")
    (library / "bad.pth").write_text("crash")
    code = """
    import os, sys
    from concurrent.futures import ThreadPoolExecutor
    from cbam_core import containers
    sys.path.insert(0, sys.argv[1])
    good, bad = (f"{sys.argv[1]}/{name}.pth" for name in ("good", "bad"))
    def read(path):
        try:
            return containers.read(path).facts["parent"]
        except containers.CheckpointError:
            return None
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, [good, bad, good, good, bad] * 8))
    assert found == [os.getpid(), None, os.getpid(), os.getpid(), None] * 8, found
    if os.fork() == 0:
        os._exit(0 if read(good) == os.getpid() else 1)
    assert os.wait()[1] == 0
    assert read(good) == os.getpid()
    """
    _python(code, library)


@pytest.mark.parametrize("does", ["good", "hang"])
def test_the_process_apart_ends_with_its_parent(library, does):
    """Even when the parent is killed, and even if it is busy then."""
    code = """
    import os, signal, sys, threading
    from pathlib import Path
    from cbam_core import containers
    from cbam_core.containers import apart
    sys.path.insert(0, sys.argv[1])
    apart.SECONDS = 0.5
    path = Path(sys.argv[1], "a.pth")
    path.write_text(sys.argv[2])
    reading = threading.Thread(target=containers.read, args=[path])
    reading.start()
    while reading.is_alive() and not path.with_name("hangs").exists():
        pass
    os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(library), does]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    with (library / "lock").open() as lock:
        # The process holds a lock that is freed when it ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
