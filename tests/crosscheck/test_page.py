"""The page of a report, as a browser shows it: whole, without a network, and with texts as text."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration
from typer.testing import CliRunner

from crosscheck import cases, page, photograph, table
from crosscheck.cli import app
from crosscheck.compare import Comparison
from crosscheck.faults import FAULTS
from crosscheck.maps import Maps
from crosscheck.page.attention import _differences
from crosscheck.page.page import _own
from crosscheck.report import Report, Row

ROOT = Path(__file__).parents[2]
QUANTITIES = ("output", "grad:input", "grad:channel.reduce.kernel", "state:spatial.norm.var")
EPS = 2.0**-52


def row(framework, case, mode="eval", quantity="output", eps=1.0, reason="", fault=""):
    difference = math.inf if reason else eps * EPS
    comparison = Comparison(quantity, 3 * difference, difference, 1e-12, reason)
    return Row(framework, case, "float64", mode, comparison, fault)


def maps(framework, seed):
    rng = np.random.default_rng(seed)
    shapes = {"gate:channel": (2, 1, 1, 8), "gate:spatial": (2, 6, 6, 1)}
    expected = {name: np.random.default_rng(0).random(shape) for name, shape in shapes.items()}
    gates = {n: a + EPS * rng.integers(-2, 3, a.shape) for n, a in expected.items()}
    return Maps(framework, "official-photo", "float64", gates, expected)


@pytest.fixture(scope="module")
def report():
    """320 sound rows of two frameworks, of which two failed, and two faults, one of them missed."""
    rows = [
        row(framework, f"case-{number}", mode, quantity, eps=number * 0.7)
        for framework in ("torch", "flax")
        for number in range(20)
        for mode in ("eval", "train")
        for quantity in QUANTITIES
    ]
    rows[3] = row("torch", "case-0", quantity="state:spatial.norm.var", reason="is missing")
    rows[40] = row("torch", "case-5", eps=1e9)
    first, second = list(FAULTS)[:2]
    rows += [row("torch", "case-1", eps=1e9, fault=first), row("torch", "case-1", fault=second)]
    found = Report("cpu", rows, 12.3, "cbam check --report 'my report.html'")
    found.maps = [maps("torch", 1), maps("flax", 2)]
    return found


def test_the_json_has_all_that_the_page_needs(report):
    facts = json.loads(json.dumps(report.to_dict()))
    again = Report.from_dict(facts)
    assert again.to_dict() == facts
    assert page.render(again) == page.render(
        Report("cpu", report.rows, 12.3, report.command, report.date)
    )


def test_its_files_are_in_a_built_package():
    distribution = Distribution()
    apply_configuration(distribution, ROOT / "pyproject.toml")
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    build.manifest_files = {}
    folder = ROOT / "crosscheck"
    packed = set(map(Path, build.find_data_files("crosscheck", str(folder))))
    own = {path for path in (folder / "page").iterdir() if path.suffix not in (".py", "")}
    assert {path.name for path in own} == {"template.html", "page.css", "page.js"}
    assert own <= packed


def test_it_is_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")
    monkeypatch.setattr(Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        page.write(report, target)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("report.html", "old")
    ]


def test_a_difference_is_in_units_of_eps_of_the_largest_value():
    expected = {"gate:spatial": np.array([[[[0.5]], [[0.25]]]])}
    gates = {"gate:spatial": expected["gate:spatial"] + EPS}
    found = _differences(Maps("torch", "case", "float64", gates, expected), EPS)
    np.testing.assert_array_equal(found["spatial"], [[2.0], [2.0]])


def test_a_page_is_made_of_any_numbers():
    extremes = (0.0, 1e-300, 1e300, math.inf)
    comparisons = [Comparison("output", e, e, limit) for e in extremes for limit in (0.0, 1e-12)]
    rows = [Row(str(n), "case", "float16", "eval", c) for n, c in enumerate(comparisons)]
    found = Report("cpu", rows)
    for value in (np.nan, np.inf, 0.0):
        one = maps("torch", 1)
        one.gates["gate:spatial"][:] = value
        found.maps.append(one)
    assert page.render(found, picture=np.zeros((8, 8, 3))).count("<svg") == len(rows)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_network_conditions(offline=True, latency=0, throughput=0)
    yield driver
    driver.quit()


def opened(browser, path, width=1280, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in preferred.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())
    return browser


@pytest.fixture(scope="module")
def path(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(report, path, picture=photograph.load(side=32))
    return path


@pytest.fixture
def shown(browser, path):
    return opened(browser, path)


def texts(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
    return browser.execute_script(script, selector)


def column(browser, name):
    return texts(browser, f'#list td[data-name="{name}"]')


def choose(browser, name, label):
    Select(browser.find_element(By.NAME, name)).select_by_visible_text(label)


def counted(browser):
    return browser.find_element(By.ID, "count").text


@pytest.mark.browser
def test_it_asks_for_nothing_else_and_has_no_error(browser, path):
    browser.get_log("performance")
    browser.get_log("browser")
    opened(browser, path)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
    broken = "return [...document.images].filter((one) => !one.naturalWidth || !one.alt).length"
    assert browser.execute_script(broken) == 0


@pytest.mark.browser
def test_it_has_what_the_command_prints(shown, report):
    printed = io.StringIO()
    table.show(report, Console(file=printed, width=200))
    printed = printed.getvalue()
    assert shown.find_element(By.TAG_NAME, "h1").text.endswith(
        "318 of 320 quantities equal, 1 of 2 planted faults caught"
    )
    assert "318 of 320 quantities equal, 1 of 2 planted faults caught" in printed
    told = [line for line in printed.splitlines() if line.strip().startswith(("torch ", "flax "))]
    table_rows = [
        re.sub(r"[✓✗]", "", element.text).lower().split()
        for element in shown.find_elements(By.CSS_SELECTOR, "#summary table")[0].find_elements(
            By.CSS_SELECTOR, "tbody tr"
        )
    ]
    assert table_rows == [line.lower().split() for line in told[:2]]
    failures = texts(shown, ".failures li")
    assert len(failures) == 3
    assert all(failure in printed for failure in failures)
    for name, version in report.made_with.items():
        assert (name, version) in zip(texts(shown, "dt"), texts(shown, "dd"), strict=True)
    assert texts(shown, "#command") == [report.command]
    copy = shown.find_element(By.ID, "copy")
    copy.click()
    # Where the clipboard is not to be had, the command is selected.
    WebDriverWait(shown, 10).until(lambda _: copy.text in ("Copied", "Selected"))


@pytest.mark.browser
def test_rows_are_filtered_searched_and_paged(shown):
    assert counted(shown) == "322 of 322 rows, 3 of them failed."
    assert len(column(shown, "case")) == 100
    choose(shown, "framework", "flax")
    assert counted(shown) == "160 of 322 rows, none of them failed."
    choose(shown, "quantity", "all gradients")
    assert set(column(shown, "quantity")) == {"grad:input", "grad:channel.reduce.kernel"}
    choose(shown, "quantity", "output")
    choose(shown, "mode", "train")
    choose(shown, "case", "case-7")
    assert counted(shown) == "1 of 322 rows, none of them failed."
    assert column(shown, "max_rel") == ["1.09e-15"]
    shown.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    shown.find_element(By.NAME, "search").send_keys("flax KERNEL case-12")
    assert counted(shown) == "2 of 322 rows, none of them failed."
    shown.find_element(By.NAME, "search").clear()
    shown.find_element(By.NAME, "failed").click()
    assert counted(shown) == "3 of 322 rows, 3 of them failed."
    assert column(shown, "verdict") == ["✗ differs: is missing", "✗ differs", "✗ missed"]
    shown.find_element(By.NAME, "failed").click()
    shown.find_element(By.CSS_SELECTOR, "[data-to=last]").click()
    assert texts(shown, "#shown") == ["301 to 322"]
    assert len(column(shown, "case")) == 22
    # A framework in the summary leads to its rows.
    shown.find_element(By.LINK_TEXT, "flax").click()
    assert set(column(shown, "framework")) == {"flax"}


@pytest.mark.browser
def test_columns_sort_both_ways_and_back(shown):
    def sort(name):
        shown.find_element(By.CSS_SELECTOR, f"[data-column={name}]").click()
        return column(shown, name)

    before = column(shown, "max_rel")
    assert sort("max_rel")[:3] == ["-", "2.22e-7", "2.22e-7"]
    sorted_ = shown.find_element(By.CSS_SELECTOR, "[aria-sort]")
    assert (sorted_.text.split()[0], sorted_.get_attribute("aria-sort")) == (
        "max_rel",
        "descending",
    )
    values = [float(text) for text in sort("max_rel")]
    assert values == sorted(values)
    assert sort("max_rel") == before
    # Numbers in names sort as numbers.
    names = list(dict.fromkeys(sort("case")))
    assert names == [f"case-{number}" for number in range(len(names))]


@pytest.mark.browser
def test_the_bars_hold_every_sound_row_and_say_which(shown, report):
    titles = texts(shown, ".panels rect title")
    assert sum(int(title.split(": ")[1].split()[0]) for title in titles) == 320
    assert [title for title in titles if title.endswith(" failed")] == [
        "1e+09 to 1.8e+09 eps: 1 failed",
        "1e+10 eps and more, or not comparable: 1 failed",
    ]
    assert texts(shown, ".panels g > text") == ["limit 1e-12"] * 2


@pytest.mark.browser
def test_every_framework_has_its_maps_and_their_differences(shown):
    assert texts(shown, ".cards figcaption b") == ["torch", "flax"]
    assert len(shown.find_elements(By.CSS_SELECTOR, ".cards img.map")) == 2 * 4
    assert re.search(
        r"enlarged [\d.]+e1\d times: full colour is \d eps", texts(shown, "#attention")[0]
    )


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_screen(browser, path, width):
    opened(browser, path, width=width)
    script = "const it = document.documentElement; return [it.scrollWidth, it.clientWidth]"
    scrolls, visible = browser.execute_script(script)
    assert scrolls <= visible <= width


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const light = (colour) => {
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const parts = [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const paper = light(getComputedStyle(document.body).backgroundColor);
const found = [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility())
  .filter((one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
  .map((one) => light(getComputedStyle(one)[one instanceof SVGElement ? "fill" : "color"]))
  .map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05));
return [paper, Math.min(...found)];
"""


@pytest.mark.browser
def test_it_is_light_and_dark_and_legible(browser, path):
    papers = {}
    for scheme in ("light", "dark"):
        opened(browser, path, scheme=scheme)
        papers[scheme], contrast = browser.execute_script(CONTRAST)
        assert contrast >= 4.5
    assert papers["light"] > 0.8
    assert papers["dark"] < 0.05
    for theme in ("light", "dark", "system"):
        choose(browser, "theme", theme)
        paper, _ = browser.execute_script(CONTRAST)
        assert paper == papers["dark" if theme == "system" else theme]


@pytest.mark.browser
def test_every_control_has_a_name_and_takes_the_keyboard(shown):
    controls = [
        one
        for one in shown.find_elements(By.CSS_SELECTOR, "a, button, select, input, [tabindex]")
        if one.is_displayed()
    ]
    assert len(controls) > 20
    assert [one.get_attribute("outerHTML") for one in controls if not one.accessible_name] == []
    script = "arguments[0].focus(); return document.activeElement === arguments[0]"
    enabled = [one for one in controls if one.is_enabled()]
    assert all(shown.execute_script(script, one) for one in enabled)


HOSTILE = (
    "<script>window.ran = 1</script>",
    '"><img src=x onerror="window.ran = 1">',
    "</script><script>window.ran = 1</script>",
    "<!--<script>",
    "$rows ${rows} \\u003c &lt; '",
)


@pytest.mark.browser
def test_texts_from_outside_stay_texts(browser, tmp_path):
    rows = [row(text, text, text, text, reason=text) for text in HOSTILE]
    rows += [row(text, text, text, "output", eps=1e9, fault=text) for text in HOSTILE]
    made_with = {text: text for text in HOSTILE}
    command = f"cbam check --image '{HOSTILE[1]}'"
    found = Report(HOSTILE[0], rows, 1.0, command, "2026-01-01T00:00:00Z", made_with)
    found.maps = [maps(text, 1) for text in HOSTILE]
    path = tmp_path / f"{HOSTILE[3]}.html"
    page.write(found, path, by_case=True, picture=photograph.load(side=32))
    browser.get_log("browser")
    opened(browser, path)
    assert column(browser, "case")[:5] == list(HOSTILE)
    assert column(browser, "verdict")[:5] == [f"✗ differs: {text}" for text in HOSTILE]
    assert texts(browser, "select[name=framework] option") == ["all", *HOSTILE]
    assert texts(browser, ".cards figcaption b") == list(HOSTILE)
    assert texts(browser, "#summary a") == list(HOSTILE)
    assert texts(browser, "dd")[-5:] == list(HOSTILE)
    assert texts(browser, "#command") == [command]
    assert browser.execute_script("return window.ran") is None
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2
    assert browser.get_log("browser") == []
    # If something slipped through, the page's own policy would stop it.
    added = "const one = document.createElement('script'); one.text = 'window.ran = 1';"
    browser.execute_script(f"{added} document.body.append(one)")
    assert browser.execute_script("return window.ran") is None


@pytest.mark.browser
def test_a_check_writes_it(browser, monkeypatch, tmp_path):
    """Two frameworks on the photograph's block alone."""
    plans = cases._default_plans()
    monkeypatch.setattr(cases, "_default_plans", lambda: [p for p in plans if p[:2] == PHOTO])
    monkeypatch.setattr(cases.trained, "cases", list)
    path, facts = tmp_path / "report.html", tmp_path / "out.json"
    frameworks = ["--frameworks", "torch,flax", "--mode", "eval"]
    call = ["check", *frameworks, "--json", str(facts), "--report", str(path)]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    rows = json.loads(facts.read_text())["rows"]
    opened(browser, path)
    assert texts(browser, "#command") == [" ".join(["cbam", *call])]
    assert counted(browser) == f"{len(rows)} of {len(rows)} rows, none of them failed."
    choose(browser, "quantity", "all gates")
    assert column(browser, "quantity") == ["gate:channel", "gate:spatial"] * 2
    assert column(browser, "mode") == ["eval"] * 4
    assert texts(browser, ".cards figcaption b") == ["torch", "flax"]


PHOTO = ("official", "photo")


def test_the_template_has_a_place_for_every_part():
    names = re.findall(r"\$(\w+)", _own("template.html"))
    assert len(names) == len(set(names)) == 11
