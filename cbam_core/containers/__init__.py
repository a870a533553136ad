"""The containers: one file for each kind of weight file, and this list of them.

A container's module has `read(path) -> Contents`, which may assume that `recognise` has named it,
and, if it can be written, `write(path, contents)`, which fills a file or folder that is renamed to
the target afterwards. Both raise anything; `read` and `write` here turn it into a CheckpointError.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cbam_core.atomic import whole_file, whole_folder
from cbam_core.containers.recognition import by_content, by_files
from cbam_core.contents import CheckpointError, Contents, check


@dataclass(frozen=True)
class Container:
    """One kind of weight file.

    Attributes:
        name: as `--format` takes it; the name of its module in this package.
        about: what writes such files.
        endings: of a target's name; the first that fits decides.
        dialect: the one that such a file is written in if none is asked for.
        requires: the module that reads it, with the extra of this project that installs it.
        apart: whether it is read by a library that a hostile file may crash, in a process of
            its own.
        writes: whether it can be written, or else what to do instead.
        is_folder: whether what is written is a folder.
    """

    name: str
    about: str
    endings: tuple[str, ...]
    dialect: str = "canonical"
    requires: tuple[str, str] | None = None
    apart: bool = False
    writes: bool | str = True
    is_folder: bool = False

    def need(self) -> None:
        """Raise an ImportError that names the extra, if the module is not installed."""
        if self.requires and not _is_installed(self.requires[0]):
            module, extra = self.requires
            raise ImportError(
                f"a {self.about} needs {module}, which is not installed; "
                f'pip install "cbam[{extra}]"'
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what stands before the point is missing
        return False


CONTAINERS = {
    container.name: container
    for container in (
        Container("safetensors", "safetensors file", (".safetensors",)),
        Container(
            "torch",
            "PyTorch file",
            (".pth", ".pt", ".pth.tar", ".bin"),
            dialect="cbam_torch",
            requires=("torch", "torch"),
            apart=True,
        ),
        Container("npz", "NumPy archive", (".npz",)),
        Container("msgpack", "Flax msgpack file", (".msgpack",), requires=("msgpack", "flax")),
        Container(
            "keras3",
            "Keras HDF5 file",
            (".weights.h5",),
            dialect="cbam_keras",
            requires=("h5py", "h5"),
            apart=True,
        ),
        Container(
            "keras2",
            "Keras HDF5 file",
            (".h5", ".hdf5"),
            dialect="kobiso_keras",
            requires=("h5py", "h5"),
            apart=True,
        ),
        Container(
            "keras",
            "Keras archive",
            (".keras",),
            requires=("h5py", "h5"),
            apart=True,
            writes="it describes a model, which only Keras can do; write a .weights.h5 file and "
            "load it there with model.load_weights",
        ),
        Container(
            "tensorflow",
            "TensorFlow checkpoint",
            (".tf",),
            requires=("tensorflow", "tf"),
            apart=True,
            is_folder=True,
        ),
        Container(
            "orbax",
            "orbax directory",
            (".orbax",),
            requires=("orbax.checkpoint", "orbax"),
            apart=True,
            is_folder=True,
        ),
        Container(
            "savedmodel",
            "TensorFlow SavedModel",
            (".savedmodel",),
            requires=("tensorflow", "tf"),
            apart=True,
            writes="it holds a program, which only TensorFlow can make; write a checkpoint "
            "(--format tensorflow) and load it there",
        ),
    )
}


def recognise(path: Path) -> Container:
    """The container of the file or folder at `path`: by its content, and if that is spoiled, by
    its ending.

    Raises:
        CheckpointError: it is something else.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CheckpointError(path, "is neither a file nor a folder")
    name = by_files(path) if path.is_dir() else by_content(path)
    if name:
        return CONTAINERS[name]
    if path.is_dir():
        raise CheckpointError(
            path, "is a folder in which no weight file that is known stands; pass one of its files"
        )
    if not path.stat().st_size:
        raise CheckpointError(path, "is empty; copy or download it again")
    for container in CONTAINERS.values():
        if path.name.endswith(container.endings):
            return container
    kinds = ", ".join(dict.fromkeys(container.about for container in CONTAINERS.values()))
    raise CheckpointError(path, f"is no weight file of a kind that is known ({kinds})")


def by_name(path: Path) -> Container:
    """The container that the ending of a target asks for.

    Raises:
        ValueError: no container has this ending.
    """
    for container in CONTAINERS.values():
        if path.name.endswith(container.endings):
            return container
    endings = ", ".join(e for c in CONTAINERS.values() for e in c.endings)
    raise ValueError(
        f"{path} has an ending that no container has ({endings}); pass --format, one of "
        f"{', '.join(CONTAINERS)}"
    )


def chosen(target: Path, name: str | None) -> Container:
    """The container of a target: that of the name, or by its ending if the name is None.

    Raises:
        ValueError: an unknown name, or no container has this ending.
    """
    if name is None:
        return by_name(target)
    if name not in CONTAINERS:
        raise ValueError(f"container={name!r} is unknown; choose from {', '.join(CONTAINERS)}")
    return CONTAINERS[name]


def read(path: os.PathLike[str] | str) -> Contents:
    """The arrays of the file or folder at `path`.

    Raises:
        FileNotFoundError: there is none.
        ImportError: the library that reads it is not installed; the message names the extra.
        CheckpointError: it is damaged, hostile, or no weight file.
    """
    path = Path(path)
    if not path.exists():
        index = path.with_name(f"{path.name}.index")
        if not index.exists():
            raise FileNotFoundError(f"{path}: no such file")
        path = index
    container = recognise(path)
    container.need()
    if container.apart:
        from cbam_core.containers import apart

        return apart.read(container, path)
    return read_here(container, path)


def read_here(container: Container, path: Path) -> Contents:
    """The arrays of `path`, read in this process; every error is a CheckpointError."""
    try:
        contents = module(container).read(path)
        check(path, contents)
    except CheckpointError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = f"{kind}{str(error).strip()[:300]}"
        raise CheckpointError(path, f"is not a readable {container.about} ({reason})") from error
    return contents


def write(path: os.PathLike[str] | str, contents: Contents, container: Container) -> None:
    """Write `contents` whole or not at all.

    Raises:
        ImportError: the library that writes it is not installed; the message names the extra.
        FileNotFoundError: the folder of the target does not exist.
        FileExistsError: there is a folder where the target is to be.
        ValueError: the container can't be written.
    """
    container.need()
    if container.writes is not True:
        raise ValueError(f"a {container.about} can't be written; {container.writes}")
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {folder}; create it first")
    whole = whole_folder if container.is_folder else whole_file
    with whole(Path(path)) as beside:
        if container.apart:
            from cbam_core.containers import apart

            apart.write(container, beside, contents)
        else:
            module(container).write(beside, contents)


def module(container: Container) -> ModuleType:
    return importlib.import_module(f"cbam_core.containers.{container.name}")
