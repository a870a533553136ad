"""`cbam summary`: what a network costs, part by part, and what the paper says of it."""

from __future__ import annotations

import dataclasses
import json as jsons
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cbam_core import ARCHITECTURES, Architecture
from cbam_core.architectures import HEADS, PLACEMENTS, STEMS, STRIDES_ON
from cbam_core.costs import Part, parts
from cbam_core.paper import PRINTED, Printed
from crosscheck.commands import options

EXAMPLES = """[bold]Examples[/bold]

cbam summary resnet50

cbam summary resnet50 --attention cbam --compare none,se

cbam summary mobilenet --widen 0.7 --size 160 --all --json costs.json

cbam summary --paper                the paper's tables 3 and 4 next to what is computed

[bold]Exit codes[/bold]

0 done (with --paper: every figure agrees or its difference is explained), 1 a figure of the paper
differs, 2 the call was wrong
"""

SIZE = 224


@dataclass(frozen=True)
class Cost:
    """What an architecture costs with one attention."""

    architecture: Architecture
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        return self.architecture.attention or "none"

    @property
    def total(self) -> Part:
        return _sum("total", self.parts)


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=f"One of: {', '.join(ARCHITECTURES)}.")
    ] = None,
    attention: Annotated[str, typer.Option(help="cbam, se or none.")] = "cbam",
    compare: Annotated[
        str | None, typer.Option(help="Attentions to set beside it; comma-separated.")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Of the picture.")] = SIZE,
    placement: Annotated[str, typer.Option(help=f"{' or '.join(PLACEMENTS)}.")] = "block",
    stem: Annotated[str, typer.Option(help=f"{' or '.join(STEMS)}.")] = "imagenet",
    stride_on: Annotated[
        str,
        typer.Option(
            help=f"The convolution of a bottleneck with the stride, {' or '.join(STRIDES_ON)}."
        ),
    ] = "3x3",
    widen: Annotated[
        float | None, typer.Option(help="Factor of the widths; the model's own if absent.")
    ] = None,
    num_classes: Annotated[int, typer.Option(help="Outputs of the head.")] = 1000,
    head: Annotated[str, typer.Option(help=f"{' or '.join(HEADS)}.")] = "plain",
    everything: Annotated[bool, typer.Option("--all", help="List every block.")] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's tables 3 and 4, without a MODEL.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the same facts to this file.")] = None,
) -> None:
    """Count the parameters and multiply-adds of a network, as the paper counts them.

    No framework is needed: the counts follow from the architecture. Multiply-adds are those of
    convolutions and linear layers, on one picture.
    """
    options.writable("--json", json)
    if paper == (model is not None):
        raise options.wrong("MODEL", "pass the name of a network, or --paper, and not both")
    console = Console()
    if model is None:
        _write(json, paper_facts())
        show_paper(console)
        raise typer.Exit(0 if all(one.agrees or one.explained for one in PRINTED) else 1)
    name = options.choice("MODEL", model, tuple(ARCHITECTURES))
    chosen = options.attentions(f"{attention},{compare}" if compare else attention)
    fields: dict[str, Any] = {
        "placement": placement,
        "stem": stem,
        "stride_on": stride_on,
        "num_classes": num_classes,
        "head": head,
    }
    fields |= {} if widen is None else {"widen": widen}
    try:
        architectures = [Architecture.named(name, attention=one, **fields) for one in chosen]
    except ValueError as error:
        raise options.wrong("an option", str(error)) from None
    costs = [Cost(one, tuple(parts(one, size, size))) for one in architectures]
    _write(json, facts(name, size, costs))
    show(name, size, costs, console, (lambda path: path) if everything else stage_of)


def show(
    name: str, size: int, costs: Sequence[Cost], console: Console, group: Callable[[str], str]
) -> None:
    """Print a line for each group of parts and the totals, and columns for each attention."""
    # One space between columns lets three attentions stand side by side on 80.
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("part", no_wrap=True)
    for cost in costs:
        for column in ("parameters", "MFLOPs"):
            table.add_column(f"{cost.name}\n{column}", justify="right", no_wrap=True)
    grouped = [_grouped(cost.parts, group) for cost in costs]
    # Without attention a network has no parts that it would not have with one.
    for label in max(grouped, key=len):
        table.add_row(label, *(text for found in grouped for text in _cells(found.get(label))))
    table.add_section()
    table.add_row("total", *(text for cost in costs for text in _cells(cost.total)))
    console.print(f"{name} on {size} x {size}; FLOPs are multiply-adds", highlight=False)
    console.print(table)
    architecture = costs[0].architecture
    if architecture.kind == "bottleneck" and architecture.stride_on == "3x3":
        console.print(
            "The 3x3 convolutions carry the strides, as in all released code; the paper's FLOPs "
            "have them in the first 1x1: --stride-on 1x1",
            style="dim",
            highlight=False,
        )


def stage_of(path: str) -> str:
    """The line of the table on which a part counts without --all.

    >>> stage_of("stage3.block0"), stage_of("stage3.block0.attention1"), stage_of("head")
    ('stage3', 'stage3 attention', 'head')
    """
    stage, *inner = path.split(".")
    return f"{stage} attention" if inner and inner[-1].startswith("attention") else stage


def _grouped(found: Iterable[Part], group: Callable[[str], str]) -> dict[str, Part]:
    groups: dict[str, list[Part]] = {}
    for part in found:
        groups.setdefault(group(part.path), []).append(part)
    return {label: _sum(label, own) for label, own in groups.items()}


def _sum(path: str, found: Iterable[Part]) -> Part:
    found = list(found)
    return Part(path, sum(part.parameters for part in found), sum(part.flops for part in found))


def _cells(part: Part | None) -> tuple[str, str]:
    return ("-", "-") if part is None else (f"{part.parameters:,}", f"{part.flops / 1e6:,.2f}")


def facts(name: str, size: int, costs: Sequence[Cost]) -> dict[str, Any]:
    """What `--json` writes of networks."""
    return {
        "schema": 1,
        "model": name,
        "size": size,
        "networks": [
            {
                "architecture": cost.architecture.to_dict(),
                "parameters": cost.total.parameters,
                "flops": cost.total.flops,
                "parts": [dataclasses.asdict(part) for part in cost.parts],
            }
            for cost in costs
        ],
    }


def show_paper(console: Console) -> None:
    """Print what the paper's tables 3 and 4 say, and what is computed."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("network", no_wrap=True)
    table.add_column("attention", no_wrap=True)
    for column in ("M parameters\npaper", "\nhere", "GFLOPs\npaper", "\nhere", "top-1", "top-5"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in PRINTED:
        name = one.name if one.widen == 1.0 else f"{one.name} x{one.widen:g}"
        cells = (one.parameters, one.computed[0], one.flops, one.computed[1], one.top1, one.top5)
        style = "" if one.agrees else "yellow" if one.explained else "red"
        table.add_row(name, one.attention or "none", *cells, style=style)
    console.print("Tables 3 and 4 of https://arxiv.org/abs/1807.06521, and what is computed")
    console.print(table)
    figures = [figure for one in PRINTED for figure in _figures(one)]
    console.print(
        f"{sum(paper == here for paper, here in figures)} of {len(figures)} figures agree, with "
        f"the strides in the first 1x1; top-1 and top-5 are the paper's errors in per cent",
        highlight=False,
    )
    for one in PRINTED:
        if one.explained:
            console.print(f"{one.name} x{one.widen:g} + {one.attention}: {one.explained}")


def _figures(one: Printed) -> Iterable[tuple[str, str]]:
    return zip((one.parameters, one.flops), one.computed, strict=True)


def paper_facts() -> dict[str, Any]:
    """What `--json` writes of the paper's tables."""
    return {
        "schema": 1,
        "rows": [
            dataclasses.asdict(one)
            | {
                "computed": dict(zip(("parameters", "flops"), one.computed, strict=True)),
                "agrees": one.agrees,
                "explained": one.explained,
            }
            for one in PRINTED
        ],
    }


def _write(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(jsons.dumps(found, indent=1) + "\n")
