"""What the manual takes from the code when it is built: hooks of MkDocs, an extension of griffe.

A line `::: each NAME ...` of a page becomes a tab for each package that has these names, and a
line `::: commands` the help of the command `cbam`. Nothing of a framework is imported.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import typer

from crosscheck import cli

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "PyTorch": "cbam_torch",
    "TensorFlow": "cbam_tf",
    "Keras": "cbam_keras",
    "Flax nnx": "cbam_flax",
    "Flax linen": "cbam_flax.linen",
}

# In tabs the page has the headings, and the table of contents names each object once.
QUIET = """
        options:
          heading_level: 4
          show_root_toc_entry: false
""".strip("\n")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its `::: each` and `::: commands` replaced; MkDocs calls it."""
    markdown = re.sub(r"^::: each (.+)$", lambda each: tabs(each[1].split()), markdown, flags=re.M)
    return re.sub(r"^::: commands$", lambda _: commands(), markdown, flags=re.M)


def tabs(names: list[str]) -> str:
    """A tab with the docstrings of `names` for each package that has them."""
    found = []
    for title, package in PACKAGES.items():
        paths = [path for name in names if _is_there(path := f"{package}.{name}")]
        if paths:
            found += [f'=== "{title}"', *(f"    ::: {path}\n{QUIET}" for path in paths)]
    return "\n\n".join(found)


def _is_there(path: str) -> bool:
    module, _, name = path.rpartition(".")
    place = ROOT / module.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return file.exists() and name in set(_names(ast.parse(file.read_text())))


def _names(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                yield node.name
            case ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in node.names)


def commands() -> str:
    """The help of every command, as Markdown."""
    group: Any = typer.main.get_command(cli.app)
    context = typer.Context(group, info_name="cbam")
    return "\n\n".join(
        _command(command, typer.Context(command, info_name=f"cbam {name}", parent=context))
        for name, command in sorted(group.commands.items())
    )


def _command(command: Any, context: typer.Context) -> str:
    usage = " ".join([context.info_name or "", *command.collect_usage_pieces(context)])
    rows = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    table = ["| argument, option | |", "|---|---|"]
    table += [f"| `{_plain(name)}` | {_plain(text)} |" for name, text in filter(None, rows)]
    parts = [f"## {context.info_name}", textwrap.dedent(command.help or ""), f"    {usage}"]
    return "\n\n".join([*parts, "\n".join(table), _epilog(command.epilog or "")])


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _epilog(text: str) -> str:
    """Rich's headings become Markdown's, and the examples one block of code."""
    paragraphs = re.sub(r"\[/?bold\]", "**", text).strip().split("\n\n")
    examples = [part for part in paragraphs if part.startswith("cbam ")]
    rest = ["@" if part in examples else part for part in paragraphs]
    block = textwrap.indent("\n".join(examples), "    ")
    return re.sub(r"@(\n\n@)*", lambda _: block, "\n\n".join(rest))


class Headings(griffe.Extension):
    """Docstrings as griffe reads them: examples stand under `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            bare = re.compile(r"^>>> .*(?:\n.+)*", flags=re.M)
            obj.docstring.value = bare.sub(
                lambda match: "Examples:\n" + textwrap.indent(match[0], "    "), text
            )
