"""An explanation as pictures: gates over the photograph, channels, and Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from skimage import color, transform

from crosscheck.explaining.explanation import NAMED, Explanation, percent

PANEL = 2.7  # inches, of a side
DPI = 110
GATES, CAMS, DIFFERENCES = "viridis", "inferno", "RdBu_r"
BAR, MEAN = "#3b5b92", "#c0504d"
# How much of a picture a map over it covers.
COVER = 0.62
WITHOUT = (
    "Grad-CAM, each over its own largest value. Without its gates: the same weights, every gate "
    "left out as if it were 1, not trained again"
)


def write(found: Explanation, title: str, folder: Path) -> list[Path]:
    """Write the pictures into the folder, and give their paths."""
    # No window: the pictures go to files.
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"spatial": _spatial, "channels": _channels, "grad_cam": _grad_cam}
    files = []
    # A $ in the name of a file is no formula.
    with matplotlib.rc_context({"text.parse_math": False}):
        for name, drawn in {
            **{n: [d] for n, d in rows.items()},
            "explain": list(rows.values()),
        }.items():
            files.append(folder / f"{name}.png")
            _figure(found, title, drawn, files[-1])
    return files


def _figure(
    found: Explanation, title: str, rows: Sequence[Callable[[Any, Explanation], None]], path: Path
) -> None:
    columns = max(4, 1 + len(found.shown))
    figure = plt.figure(
        figsize=(PANEL * columns + 0.4, (PANEL + 1.1) * len(rows) + 0.5),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06),
    )
    figure.suptitle(f"{title}\n{found.verdict}", fontsize="medium", x=0.01, ha="left")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, draw in zip(parts, rows, strict=True):
        draw(part, found)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _panels(figure: Any, found: Explanation, title: str) -> list[Axes]:
    """The panels of a row, without their frames."""
    figure.suptitle(title, fontsize="small", x=0.01, ha="left", color="#444444")
    panels = list(figure.subplots(1, max(4, 1 + len(found.shown))))
    for axes in panels:
        axes.set_axis_off()
    return panels


def _spatial(figure: Any, found: Explanation) -> None:
    """The picture, and Ms of each stage over it."""
    panels = _panels(figure, found, "Spatial gates Ms over the picture, each on its own scale")
    _picture(figure, panels[0], found)
    for axes, path in zip(panels[1:], found.shown, strict=False):
        gate = found.spatial(path)
        if gate is None:
            axes.set_title(f"{path}\nhas no spatial gate", fontsize="small")
            continue
        image = _over(axes, found, gate, GATES)
        axes.set_title(f"{path}\n{gate.shape[0]} x {gate.shape[1]}", fontsize="small")
        _scale(figure, image, axes)


def _channels(figure: Any, found: Explanation) -> None:
    """Mc of each stage: all in order, and the strongest by their numbers."""
    title = f"Channel gates Mc: all of them in order, and the {NAMED} strongest by their numbers"
    panels = _panels(figure, found, title)
    for axes, path in zip(panels[1:], found.shown, strict=False):
        channel = found.channel(path)
        if channel is None:
            axes.set_title(f"{path}\nhas no channel gate", fontsize="small")
            continue
        axes.set_title(f"{path}\ndashed: the mean, {channel.mean():.3f}", fontsize="small")
        strongest = found.strongest(path)
        axes.barh(range(len(strongest)), channel[strongest], color=BAR, height=0.72)
        axes.set_yticks(range(len(strongest)), [str(number) for number in strongest])
        axes.invert_yaxis()
        axes.axvline(channel.mean(), color=MEAN, linewidth=1, linestyle="--")
        _framed(axes)
        share = np.linspace(0, 100, len(channel))
        panels[0].plot(share, np.sort(channel)[::-1], label=path.partition(".")[0])
    panels[0].set_title("all channels\n", fontsize="small")
    panels[0].set_xlabel("% of the channels, strongest first", fontsize="small")
    panels[0].legend(fontsize="x-small", frameon=False)
    _framed(panels[0])


def _grad_cam(figure: Any, found: Explanation) -> None:
    """The picture, Grad-CAM over it with the gates and without them, and what they change."""
    panels = _panels(figure, found, WITHOUT)
    _picture(figure, panels[0], found)
    # A map of zeros has no scale.
    cam, plain = (array / (array.max() or 1.0) for array in (found.cam, found.plain_cam))
    said = (percent(logits, found.target) for logits in (found.logits, found.plain_logits))
    names = (f"{found.layer} with its gates", f"{found.plain_layer} without its gates")
    for axes, array, name, share in zip(panels[1:3], (cam, plain), names, said, strict=True):
        axes.set_title(f"{name}\nclass {found.target}: {share}", fontsize="small")
        _scale(figure, _over(axes, found, array, CAMS, (0, 1)), axes)
    if found.layer == found.plain_layer:
        panels[3].set_title("what the gates change\nwith - without", fontsize="small")
        most = np.abs(cam - plain).max() or 1.0
        image = _over(panels[3], found, cam - plain, DIFFERENCES, (-most, most))
        _scale(figure, image, panels[3])


def _over(
    axes: Axes,
    found: Explanation,
    array: np.ndarray,
    colors: str,
    limits: tuple[float, float] | None = None,
) -> Any:
    """A map over the picture, which is grey and pale under it."""
    grey = color.rgb2gray(found.picture)
    least, most = limits or (array.min(), array.max())
    axes.imshow(0.25 + 0.75 * grey, cmap="gray", vmin=0, vmax=1)
    large = transform.resize(array, grey.shape, order=1, mode="edge", anti_aliasing=False)
    return axes.imshow(large, cmap=colors, alpha=COVER, vmin=least, vmax=most)


def _picture(figure: Any, axes: Axes, found: Explanation) -> None:
    image = axes.imshow(np.clip(found.picture, 0, 1))
    # So that it stands as high as its neighbours.
    _scale(figure, image, axes).set_visible(False)
    height, width, _ = found.picture.shape
    axes.set_title(f"the picture\n{height} x {width}", fontsize="small")


def _scale(figure: Any, image: Any, axes: Axes) -> Axes:
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.9, aspect=30, pad=0.03)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    bar.ax.tick_params(labelsize="x-small")
    bar.outline.set_visible(False)
    return bar.ax


def _framed(axes: Axes) -> None:
    axes.set_axis_on()
    axes.tick_params(labelsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)
