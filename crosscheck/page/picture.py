"""Arrays as pictures in the page: colours, and PNG files as data URIs."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

# From dark to bright, evenly for the eye: viridis, at nine of its points.
_SEQUENTIAL = (
    "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"
)  # fmt: skip
# What is below, and what above.
_BELOW, _ABOVE = (38, 110, 200), (214, 60, 44)
# What is no number.
_NOTHING = (128, 128, 128)


def sequential(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours (..., 3) in 0 to 255 of values from `low` to `high`."""
    points = np.array([list(bytes.fromhex(colour)) for colour in _SEQUENTIAL.split()])
    share = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    at = np.linspace(0, 1, len(points))
    finite = np.isfinite(share)
    channels = [np.interp(np.where(finite, share, 0.0), at, channel) for channel in points.T]
    return np.where(finite[..., None], np.stack(channels, -1).round(), _NOTHING).astype(np.uint8)


def diverging(values: np.ndarray, reach: float) -> np.ndarray:
    """Colours and opacity (..., 4) in 0 to 255: 0 lets the page through, `reach` does not.

    Values beyond `reach` are shown as it.
    """
    finite = np.isfinite(values)
    share = np.where(finite, values, 0.0) / reach if reach else np.zeros(values.shape)
    opacity = np.where(finite, np.minimum(np.abs(share), 1.0), 1.0)
    colours = np.where((values > 0)[..., None], _ABOVE, _BELOW)
    colours = np.where(finite[..., None], colours, _NOTHING)
    return np.concatenate([colours, 255 * opacity[..., None]], -1).round().astype(np.uint8)


# What PNG calls a picture with so many numbers a pixel.
_COLOURS = {3: 2, 4: 6}


def data_uri(pixels: np.ndarray) -> str:
    """A PNG of pixels (H, W, 3), or (H, W, 4) with their opacity, in 0 to 255.

    >>> data_uri(np.zeros((1, 2, 3), np.uint8))[:26]
    'data:image/png;base64,iVBO'
    """
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()


def _png(pixels: np.ndarray) -> bytes:
    height, width, channels = pixels.shape
    # Each line begins with its filter: none.
    lines = b"".join(b"\0" + line.tobytes() for line in pixels.astype(np.uint8))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
