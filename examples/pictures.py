"""Pictures and labels for the recipes, read with NumPy and Pillow alone: the same for each of them.

What is drawn, the order of an epoch and the crop of a picture, is a function of the seed, the epoch
and the picture's number. So every framework sees the same bits, with however many workers, and a
run that was interrupted goes on with those that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = ("cifar10", "cifar100", "folder")

# Mean and deviation of red, green and blue, of 0 to 1, by which a network's input is normalised.
NORMALS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # ImageNet's, as the authors' training has them.
    "folder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# Folder, files for training, file for tests, bytes of labels before each picture, names of classes.
CIFAR = {
    "cifar10": (
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        1,
        "batches.meta.txt",
    ),
    "cifar100": ("cifar-100-binary", ("train.bin",), "test.bin", 2, "fine_label_names.txt"),
}
SIDE = 32
PADDING = 4

ENDINGS = (".jpeg", ".jpg", ".png", ".webp")
# Of a training crop: its share of the picture, and its width over its height.
SHARES, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)
# In evaluation the shorter side is this many times the side of the crop from the middle.
MARGIN = 256 / 224

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """One part of a data set.

    Attributes:
        data: one of `DATA`.
        sources: (N, 32, 32, 3) uint8 of CIFAR, or the paths of N files.
        labels: (N,) int64.
        classes: the names of the labels.
        size: height and width of what a network is given.
        seed: of all that is drawn.
    """

    data: str
    sources: np.ndarray | Sequence[Path]
    labels: np.ndarray
    classes: tuple[str, ...]
    size: int
    seed: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, index: int, epoch: int | None = None) -> np.ndarray:
        """(size, size, 3) float32, normalised; augmented as in `epoch`, or not at all if None."""
        rng = None if epoch is None else np.random.default_rng([self.seed, 1, epoch, index])
        source = self.sources[index]
        if isinstance(source, Path):
            crop = crop_of(source, self.size, rng)
        else:
            crop = cifar_crop(source, rng)
        mean, deviation = np.array(NORMALS[self.data], np.float32)
        return (crop / np.float32(255) - mean) / deviation

    def batch(self, indices: np.ndarray, epoch: int | None = None) -> Batch:
        """(N, size, size, 3) pictures and their labels."""
        return np.stack([self.picture(index, epoch) for index in indices]), self.labels[indices]

    def order(self, epoch: int, batch_size: int) -> np.ndarray:
        """(steps, batch_size) indices of an epoch's batches; those that fill none are left out."""
        steps = len(self) // batch_size
        shuffled = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self))
        return shuffled[: steps * batch_size].reshape(steps, batch_size)

    def in_turn(self, batch_size: int) -> list[np.ndarray]:
        """Indices of all pictures, batch by batch; the last may be smaller."""
        return np.split(np.arange(len(self)), range(batch_size, len(self), batch_size))


def load(data: str, root: Path, size: int, seed: int) -> tuple[Pictures, Pictures]:
    """What is trained on, and what it is tested on.

    Raises:
        FileNotFoundError, ValueError: the folder is not laid out as expected; the message says how
            it should be, and where the data are had.
    """
    if data != "folder":
        return cifar(data, root, "train", seed), cifar(data, root, "test", seed)
    train, test = folder(root / "train", size, seed), folder(root / "val", size, seed)
    if train.classes != test.classes:
        apart = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"{root}/train and {root}/val have not the same classes: {', '.join(apart[:3])} in one "
            f"of them only; give each class a folder of one name in both"
        )
    return train, test


def cifar(data: str, root: Path, part: str, seed: int) -> Pictures:
    """CIFAR's binary version: of each picture the label and the red, green and blue planes.

    The Python version is never read: its files are pickles, which run what code they like.
    """
    name, train, test, label_bytes, names = CIFAR[data]
    folder = root / name if (root / name).is_dir() else root
    files = [folder / file for file in (train if part == "train" else (test,))]
    if missing := [file.name for file in (*files, folder / names) if not file.is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}; get the binary version of {data} from "
            f"https://www.cs.toronto.edu/~kriz/cifar.html, unpack it and pass the folder {name} or "
            f"the one around it (the Python version is not read: pickles can run code)"
        )
    records = np.concatenate([_records(file, label_bytes) for file in files])
    classes = tuple((folder / names).read_text().split())
    # Of CIFAR-100's two labels the second is the fine one.
    labels = records[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= len(classes):
        raise ValueError(
            f"{folder} has a label {labels.max()}, and {names} names {len(classes)} classes; "
            f"unpack the archive anew"
        )
    planes = records[:, label_bytes:].reshape(-1, 3, SIDE, SIDE)
    return Pictures(data, planes.transpose(0, 2, 3, 1), labels, classes, SIDE, seed)


def _records(file: Path, label_bytes: int) -> np.ndarray:
    length = label_bytes + 3 * SIDE * SIDE
    content = np.fromfile(file, np.uint8)
    if not len(content) or len(content) % length:
        raise ValueError(
            f"{file} has {len(content):,} bytes, which are no whole records of {length:,}; unpack "
            f"the archive anew"
        )
    return content.reshape(-1, length)


def folder(root: Path, size: int, seed: int) -> Pictures:
    """Pictures in one folder for each class, which it names: ImageNet's layout."""
    classes = tuple(sorted(path.name for path in root.glob("*/"))) if root.is_dir() else ()
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in ENDINGS
    ]
    if not found:
        raise FileNotFoundError(
            f"{root} holds no pictures in folders of their classes; expected are "
            f"train/CLASS/*.jpeg and val/CLASS/*.jpeg ({', '.join(ENDINGS)}). ImageNet is had from "
            f"https://image-net.org/download.php; sort its validation pictures into such folders "
            f"first"
        )
    paths, labels = zip(*found, strict=True)
    return Pictures("folder", paths, np.array(labels, np.int64), classes, size, seed)


def cifar_crop(picture: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """Of a picture with a black margin a random part of its size, or its mirror image."""
    if rng is None:
        return picture
    padded = np.pad(picture, [(PADDING, PADDING), (PADDING, PADDING), (0, 0)])
    top, left = rng.integers(0, 2 * PADDING, 2, endpoint=True)
    crop = padded[top : top + SIDE, left : left + SIDE]
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def crop_of(path: Path, size: int, rng: np.random.Generator | None) -> np.ndarray:
    """A random part of a picture, or its mirror image; or its middle, where nothing is random."""
    from PIL import Image

    with Image.open(path) as image:
        box = middle(image.size) if rng is None else random_box(image.size, rng)
        crop = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(crop)
    return pixels[:, ::-1] if rng is not None and rng.random() < 0.5 else pixels


def random_box(extent: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a part of a picture of `extent` (width, height).

    As of Szegedy et al., https://arxiv.org/abs/1409.4842: its share of the area and its ratio are
    drawn; a part that does not fit is drawn again, ten times at most.
    """
    width, height = extent
    for _ in range(10):
        area = width * height * rng.uniform(*SHARES)
        ratio = np.exp(rng.uniform(*np.log(RATIOS)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(0, (width - w, height - h), endpoint=True).tolist()
            return left, top, left + w, top + h
    return middle(extent, margin=1.0)


def middle(extent: tuple[int, int], margin: float = MARGIN) -> tuple[int, int, int, int]:
    """The square in a picture's middle; the picture's shorter side is `margin` times its side."""
    width, height = extent
    side = max(1, round(min(extent) / margin))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
