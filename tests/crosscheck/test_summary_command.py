"""`cbam summary`, as its users call it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cbam_core import ARCHITECTURES, Architecture, flops, parameters
from cbam_core.paper import PRINTED
from tests.crosscheck.test_cli import cbam


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_a_network_part_by_part(tmp_path):
    path = tmp_path / "costs.json"
    done = cbam("summary", "resnet50", "--compare", "none,se", "--json", path, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert lines["total"][::2] == ["28,089,624", "25,557,032", "28,088,024"]
    assert lines["head"][:2] == ["2,049,000", "2.05"]
    assert "stage1 attention 25,692 0.97 - - 25,392 0.02" in words(done.stdout)
    assert "the paper's FLOPs have them in the first 1x1: --stride-on 1x1" in words(done.stdout)
    found = json.loads(path.read_text())
    assert (found["model"], found["size"]) == ("resnet50", 224)
    for network in found["networks"]:
        architecture = Architecture.from_dict(network["architecture"])
        assert network["parameters"] == parameters(architecture)
        assert network["flops"] == flops(architecture, 224, 224)
        assert network["flops"] == sum(part["flops"] for part in network["parts"])
        assert f"{network['flops'] / 1e6:,.2f}" in lines["total"]


def test_all_lists_every_block_and_the_options_are_the_network_s(tmp_path):
    path = tmp_path / "costs.json"
    arguments = "--all --attention se --widen 0.7 --size 160 --num-classes 10 --head dual_pooling"
    done = cbam("summary", "mobilenet", *arguments.split(), "--json", path)
    assert done.returncode == 0, done.stderr
    assert "stage4.block3.attention2" in done.stdout
    assert "strides" not in done.stdout  # a MobileNet has but one place for them
    (network,) = json.loads(path.read_text())["networks"]
    fields = {"attention": "se", "widen": 0.7, "num_classes": 10, "head": "dual_pooling"}
    assert Architecture.from_dict(network["architecture"]) == Architecture.named(
        "mobilenet", **fields
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_factory(name):
    done = cbam("summary", name)
    assert done.returncode == 0, done.stderr
    total = parameters(Architecture.named(name, attention="cbam"))
    assert f"total {total:,}" in words(done.stdout)


def test_the_paper_s_tables(tmp_path):
    path = tmp_path / "paper.json"
    done = cbam("summary", "--paper", "--json", path, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    shown = words(done.stdout)
    for one in PRINTED:
        (here, billions) = one.computed
        row = f"{one.attention or 'none'} {one.parameters} {here} {one.flops} {billions} {one.top1}"
        assert row in shown
    assert "59 of 60 figures agree, with the strides in the first 1x1" in shown
    assert "mobilenet x0.7 + se: with C/16 hidden units rounded down" in shown
    rows = json.loads(path.read_text())["rows"]
    assert [(row["name"], row["agrees"]) for row in rows if not row["agrees"]] == [
        ("mobilenet", False)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass the name of a network, or --paper, and not both"),
        (["resnet50", "--paper"], "pass the name of a network, or --paper, and not both"),
        (["resnet18,vgg"], "'resnet18,vgg' is unknown; choose from resnet18, resnet34"),
        (["resnet50", "--attention", "eca"], "'eca' is unknown; choose from cbam, se, none"),
        (["resnet50", "--compare", "eca"], "'eca' is unknown; choose from cbam, se, none"),
        (["resnet50", "--placement", "tail"], "placement='tail' is unknown; choose from 'block'"),
        (["resnet50", "--stride-on", "7x7"], "stride_on='7x7' is unknown; choose from '1x1'"),
        (["resnet50", "--widen", "0"], "widen=0.0 leaves no channel of widths=(64, 128, 256, 512)"),
        (["resnet50", "--num-classes", "0"], "num_classes=0 is below 1; pass a positive integer"),
        (["resnet50", "--size", "0"], "Input should be greater than or equal to 1"),
        (["resnet50", "--json", "no/such.json"], "is in a folder that does not exist"),
    ],
    ids=str,
)
def test_a_wrong_call_exits_with_2_and_says_why(arguments, message):
    done = cbam("summary", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in words(done.stderr)


def test_help_has_examples_and_exit_codes():
    shown = words(cbam("summary", "--help").stdout)
    assert "cbam summary resnet50 --attention cbam --compare none,se" in shown
    assert "1 a figure of the paper differs, 2 the call was wrong" in shown


def test_it_imports_no_framework():
    """Counted, not timed: what takes seconds to load is a framework, and NumPy alone is needed."""
    code = (
        "import sys; from crosscheck.__main__ import main\n"
        "sys.argv = ['cbam', 'summary', 'resnet152', '--compare', 'none,se']\n"
        "try: main()\n"
        "except SystemExit as done: assert done.code == 0\n"
        "print(*{'torch', 'tensorflow', 'keras', 'jax', 'flax', 'skimage'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
