"""A feature map of a real photograph: what a network's stem would hand to its first attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 224
MEAN, DEVIATION = 0.45, 0.25
STRIDE = 4
KERNEL = 7


def load(path: Path | None = None, side: int = SIDE) -> np.ndarray:
    """The picture at `path`, or scikit-image's astronaut, as (side, side, 3) float64 in [0, 1].

    The largest centred square is taken, so nothing is distorted.

    Raises:
        ValueError: the file is no picture that can be read.
    """
    from skimage import color, data, io, transform, util

    if path is None:
        picture = data.astronaut()
    else:
        try:
            picture = io.imread(path)
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"--image {path} is not a readable picture ({error})") from error
    if picture.ndim == 3 and picture.shape[2] == 2:
        picture = picture[:, :, 0]  # grey with an alpha channel
    if picture.ndim == 2:
        picture = color.gray2rgb(picture)
    if picture.ndim != 3 or picture.shape[2] < 3:
        raise ValueError(f"--image {path} has shape {picture.shape}, expected one RGB picture")
    largest = min(picture.shape[:2])
    top, left = ((size - largest) // 2 for size in picture.shape[:2])
    square = util.img_as_float64(picture[top : top + largest, left : left + largest, :3])
    return transform.resize(square, (side, side), anti_aliasing=True)


def pictures(path: Path | None = None, side: int = SIDE) -> np.ndarray:
    """(2, side, side, 3): the picture and its mirror image, normalised."""
    picture = (load(path, side) - MEAN) / DEVIATION
    return np.stack([picture, picture[:, ::-1]])


def feature_map(path: Path | None = None, channels: int = 32) -> np.ndarray:
    """(2, 56, 56, channels): the picture and its mirror image behind fixed random 7x7 filters.

    The filters have stride 4 and a ReLU behind them, like a network's stem: about half of all
    values tie at 0, and neighbouring positions resemble each other, which random numbers do not.
    """
    filters = np.random.default_rng(7).standard_normal((KERNEL, KERNEL, 3, channels))
    filters *= np.sqrt(2 / (KERNEL * KERNEL * 3))
    maps = [_convolve(image, filters) for image in pictures(path)]
    return np.maximum(np.stack(maps), 0.0)


def _convolve(image: np.ndarray, filters: np.ndarray) -> np.ndarray:
    half = KERNEL // 2
    padded = np.pad(image, [(half, half), (half, half), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), (0, 1))
    return np.einsum("hwcij,ijco->hwo", windows[::STRIDE, ::STRIDE], filters, optimize=True)
