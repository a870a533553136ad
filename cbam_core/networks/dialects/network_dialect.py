"""What a dialect of networks is: the names that one public implementation gives its layers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkDialect:
    """The residual networks of one public implementation, as a table of names.

    The arrays lie as PyTorch has them.

    Attributes:
        name: as `--to` takes it.
        about: whose code it is, in a line.
        stem: the convolution and its norm.
        block: the path of a residual block, with its {stage}, counted from 1, and its number
            there, {block} counted from 0 or {ordinal} from 1.
        unit: below that path, each convolution and its norm, with the {unit} counted from 1.
        projection: the same of the shortcut.
        attention: below that path, where the block's attention stands, in the dialect of blocks
            that has this name; "" if right in the block, None if that code has none.
        head: the linear layer.
        stride_on: the convolution of a bottleneck that carries the stride, which no array shows.
    """

    name: str
    about: str
    stem: tuple[str, str]
    block: str
    unit: tuple[str, str]
    projection: tuple[str, str]
    head: str
    attention: str | None = None
    stride_on: str = "3x3"

    def block_path(self, stage: int, block: int) -> str:
        """Of the block that is number `block`, from 0, in `stage`, from 1."""
        return self.block.format(stage=stage, block=block, ordinal=block + 1)
