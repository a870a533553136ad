"""The command `cbam`: its parts, each of which is a file of `crosscheck.commands`."""

from __future__ import annotations

import typer

from crosscheck.commands import bench, check, convert, explain, export, identify, inspect, summary

app = typer.Typer(
    help="CBAM in PyTorch, TensorFlow, Keras 3 and Flax: one meaning, proven equal.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for module in (bench, check, convert, explain, export, identify, inspect, summary):
    app.command(module.__name__.rpartition(".")[2], epilog=module.EXAMPLES)(module.command)
