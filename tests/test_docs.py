"""The pages: their examples run, and what they name is there."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from crosscheck import cli
from crosscheck.faults import FAULTS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The framework to which a module belongs.
OWNERS = {
    "torch": "torch", "cbam_torch": "torch", "tensorflow": "tf", "cbam_tf": "tf", "keras": "keras",
    "cbam_keras": "keras", "jax": "flax", "flax": "flax", "optax": "flax", "cbam_flax": "flax",
}  # fmt: skip
BACKENDS = {"tf": "tensorflow", "torch": "torch"}
# What torchrun sets for a single process.
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
# Of each package's `evaluate`: what a worker and `cbam explain` call.
CALLED = [
    f"evaluate.{name}"
    for name in ("prepare", "evaluate", "evaluate_network", "evaluate_gates", "explain_network")
]
SHARED = [f"hub.{name}" for name in ("save_pretrained", "from_pretrained", "push_to_hub")]
# Written like the marks of figures that are still to be filled in, but meant.
VARIABLES = {"CBAM_KERNELS", "KERAS_BACKEND", "TF_CONFIG", "XLA_FLAGS"}


def blocks(page: Path, language: str) -> Iterator[str]:
    """The page's blocks of code, also those in tabs."""
    fenced = rf"^( *)```{language}\n(.*?)^\1```"
    for _, code in re.findall(fenced, page.read_text(), re.DOTALL | re.MULTILINE):
        yield textwrap.dedent(code)


def imported(code: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(code)):
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return names


def groups() -> dict[str, dict[str, str]]:
    """The examples by the frameworks that they import."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for page in PAGES:
        for number, code in enumerate(blocks(page, "python")):
            roots = {name.partition(".")[0] for name in imported(code)}
            owners = sorted({OWNERS[root] for root in roots & set(OWNERS)})
            found["+".join(owners) or "core"][f"{page.relative_to(ROOT)}-{number}"] = code
    return found


GROUPS = groups()


@pytest.mark.parametrize("group", GROUPS)
def test_examples_run(group):
    examples = GROUPS[group]
    modules = set(itertools.chain(*map(imported, examples.values())))
    # TensorFlow before torch can end a process.
    ordered = sorted(modules, key=lambda name: (not name.startswith("torch"), name))
    backend = next((BACKENDS[one] for one in group.split("+") if one in BACKENDS), "jax")
    done = subprocess.run(
        [sys.executable, "-m", "tests.run_examples"],
        input=json.dumps([ordered, examples]),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend} | TORCHRUN,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    failed = json.loads(done.stdout.splitlines()[-1])
    assert not failed, "\n\n".join(f"{name}\n{examples[name]}\n{failed[name]}" for name in failed)


def test_no_placeholder_is_left():
    for page in PAGES:
        assert set(re.findall(r"\b[A-Z]+_[A-Z]+\b", page.read_text())) <= VARIABLES, page.name


def test_the_number_of_faults_is_the_one_that_is_told():
    assert f"plants {len(FAULTS)} faults" in (ROOT / "README.md").read_text()


def test_the_pages_name_only_what_exists():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_pages_name_only_commands_that_exist():
    commands = typer.main.get_command(cli.app).commands
    for page in PAGES:
        for line in re.findall(r"^ *(?:\$ )?(cbam [a-z].*)", page.read_text(), re.MULTILINE):
            # What follows two blanks explains it.
            _, command, *rest = shlex.split(re.split(r"\s{2,}| #", line)[0])
            assert command in commands, f"{page.name}: {line}"
            options = {option for one in commands[command].params for option in one.opts}
            for option in rest:
                name = option.partition("=")[0]
                known = not name.startswith("--") or name in options
                assert known, f"{page.name}: {line}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The manual, built strictly."""
    folder = tmp_path_factory.mktemp("manual")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_the_manual_fetches_nothing(site):
    """What a browser loads for a page is in the site; links to read may lead elsewhere."""
    # The page for errors is a server's, and has paths from its root.
    for page in set(site.rglob("*.html")) - {site / "404.html"}:
        loaded = re.findall(
            r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"([^\"]*)", page.read_text()
        )
        assert loaded
        for path in loaded:
            file = path.partition("?")[0].partition("#")[0]
            assert path.startswith("data:") or (page.parent / file).exists(), f"{page.name}: {path}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text()), style.name


def test_the_reference_has_every_public_name(site):
    pages = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    for package in (
        "cbam_core",
        "cbam_torch",
        "cbam_tf",
        "cbam_keras",
        "cbam_flax",
        "cbam_flax.linen",
    ):
        source = (ROOT / package.replace(".", "/") / "__init__.py").read_text()
        names = ast.literal_eval(re.search(r"__all__ = (\[.*?\])", source, re.DOTALL)[1])
        names += CALLED if package != "cbam_core" else []
        names += SHARED if package == "cbam_torch" else []
        missing = [name for name in names if f'id="{package}.{name}"' not in pages]
        assert not missing, f"{package}: {missing}"
