"""Real data for small networks, and their batches, drawn in NumPy: the same bits for all.

- digits: scikit-learn's 1,797 scanned digits (Alpaydin and Kaynak, UCI, 1998), for classification.
- photographs: crops of scikit-image's photographs, for regression: from a crop to where in its
  photograph it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
CROPS, SIDE = 256, 16
# Of the crops, before they are made smaller.
REACH = 64


@dataclass(frozen=True)
class Data:
    """Pictures and what a network shall say to them.

    Attributes:
        pictures: (N, H, W, 3) float64, normalised.
        targets: labels (N,) or values (N, K).
    """

    pictures: np.ndarray
    targets: np.ndarray

    def split(self, count: int, seed: int = 0) -> tuple[Data, Data]:
        """All but `count` of them, and those `count`, which training is not to see.

        >>> [len(part.pictures) for part in digits().split(360)]
        [1437, 360]
        """
        order = np.random.default_rng(seed).permutation(len(self.pictures))
        kept, held_out = np.split(order, [len(order) - count])
        return self.chosen(kept), self.chosen(held_out)

    def chosen(self, places: np.ndarray) -> Data:
        return Data(self.pictures[places], self.targets[places])

    def batches(
        self, steps: int, size: int = 32, *, first: int = 0, seed: int = 0, shift: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of the steps from `first` to `steps`: each epoch in an order of its own.

        Args:
            shift: the largest number of pixels by which a picture is moved, in each direction.
        """
        each = len(self.pictures) // size
        for step in range(first, steps):
            epoch, place = divmod(step, each)
            order = np.random.default_rng([seed, 0, epoch]).permutation(len(self.pictures))
            chosen = order[place * size : (place + 1) * size]
            rng = np.random.default_rng([seed, 1, step])
            moves = rng.integers(-shift, shift, (size, 2), endpoint=True)
            yield moved(self.pictures[chosen], moves), self.targets[chosen]


def moved(pictures: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Each picture moved by its (rows, columns); what comes in is the edge's.

    >>> moved(np.arange(3.0).reshape(1, 1, 3, 1), np.array([[0, 1]])).ravel()
    array([0., 0., 1.])
    """
    height, width = pictures.shape[1:3]
    rows = np.clip(np.arange(height) - moves[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) - moves[:, 1:], 0, width - 1)
    return pictures[np.arange(len(pictures))[:, None, None], rows[:, :, None], columns[:, None]]


def digits() -> Data:
    """All 1,797 digits, 8 x 8 in three equal channels, from 0 to 16 made about -1 to 2.

    >>> digits().pictures.shape
    (1797, 8, 8, 3)
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = (found.images - found.images.mean()) / found.images.std()
    return Data(np.repeat(grey[..., None], 3, axis=-1), found.target)


def photographs() -> Data:
    """Crops of photographs, and their centres: (row, column) from -1 to 1.

    >>> photographs().targets.shape
    (256, 2)
    """
    from skimage import data, transform

    rng = np.random.default_rng(0)
    images = [getattr(data, name)() / 255 for name in PHOTOGRAPHS]
    crops, centres = [], []
    for number in range(CROPS):
        image = images[number % len(images)]
        free = np.array(image.shape[:2]) - REACH
        top, left = rng.integers(0, free, endpoint=True)
        crop = image[top : top + REACH, left : left + REACH]
        crops.append(transform.resize(crop, (SIDE, SIDE), anti_aliasing=True))
        centres.append(np.array([top, left]) / free * 2 - 1)
    pictures = np.stack(crops)
    return Data((pictures - pictures.mean()) / pictures.std(), np.stack(centres))
