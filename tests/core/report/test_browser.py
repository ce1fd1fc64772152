"""The page in a real browser; only where there is one."""

import pytest
from chromium import NAMES, Chromium, find_chromium
from PIL import Image
from report_runs import write_runs

from uncertainty_core.report import build_page, find_runs

pytestmark = pytest.mark.skipif(find_chromium() is None, reason=f"needs one of {', '.join(NAMES)}")

SERIES = "[...document.querySelectorAll('g.series')].filter(g => g.getClientRects().length).map(g => g.dataset.run)"
ROWS = "[...document.querySelector('table').tBodies].flatMap(body => [...body.rows])"
FIRST_COLUMN = f"{ROWS}.map(row => row.cells[0].innerText.split('\\n')[0])"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def shown(browser, page_file):
    """The page as it opens."""
    browser.open(page_file)
    yield browser
    assert browser.errors == []


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_runs(folder / "runs")
    path = folder / "report.html"
    path.write_text(build_page(find_runs([folder / "runs"]), "Comparison"), encoding="utf-8")
    return path


def sort_by(name):
    """Press the first button of this name; what the column's head says of its order, and the first column."""
    return f"""(() => {{
        const button = [...document.querySelectorAll('th button')].find(b => b.innerText.startsWith('{name}'));
        button.click();
        return [button.closest('th').ariaSort, document.querySelectorAll('[aria-sort]').length, {FIRST_COLUMN}];
    }})()"""


def test_boxes_show_and_hide_a_run_in_every_chart(shown):
    def drawn():
        return sorted(run for run in shown.run(SERIES) if run.startswith("g0"))

    assert drawn() == sorted(2 * [f"g0-{k}" for k in (0, 1, 2, 3, 5, 6)])  # MC-10 stands behind MC-100
    shown.run("document.querySelectorAll('input[data-run=g0-4]')[1].click()")
    shown.run("document.querySelector('input[data-run=g0-0]').click()")
    assert drawn() == sorted(2 * [f"g0-{k}" for k in range(1, 7)])
    # both boxes of a run agree
    checked = "[...document.querySelectorAll('input[data-run=g0-{}]')].map(box => box.checked)"
    assert shown.run(checked.format(0)) == [False, False]
    assert shown.run(checked.format(4)) == [True, True]


def test_tables_sort(shown):
    # rows with one pass, and below them those with several
    assert shown.run(FIRST_COLUMN) == [
        "baseline",
        "DDN",
        "distillation",
        "KD <half>",
        "MC-10",
        "MC-100",
        "ensemble of 2",
    ]
    one, several = ["distillation", "baseline", "KD <half>", "DDN"], ["ensemble of 2", "MC-100", "MC-10"]
    assert shown.run(sort_by("Test acc.")) == ["descending", 1, one + several]
    assert shown.run(sort_by("Test acc.")) == ["ascending", 1, one[::-1] + several[::-1]]
    # lower is better: ascending first; ECE is 0.02 (k + 1) modulo 0.07 of the k-th predictor that is written
    one, several = ["distillation", "baseline", "DDN", "KD <half>"], ["ensemble of 2", "MC-10", "MC-100"]
    assert shown.run(sort_by("ECE")) == ["ascending", 1, one + several]
    assert shown.run(sort_by("ECE")) == ["descending", 1, one[::-1] + several[::-1]]
    by_name = ["baseline", "DDN", "distillation", "KD <half>", "ensemble of 2", "MC-10", "MC-100"]
    assert shown.run(sort_by("predictor")) == ["ascending", 1, by_name]


def test_the_keyboard_reaches_everything(shown):
    shown.run("document.querySelector('th button').focus()")
    shown.press(" ")
    assert shown.run("document.querySelector('th').ariaSort") == "ascending"
    reached = set()
    for _ in range(60):
        shown.press("Tab")
        reached.add(shown.run("document.activeElement.tagName + document.activeElement.className"))
        if shown.run("document.activeElement.type") == "checkbox":
            outline = shown.run("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"  # one sees where one is
            break
    shown.press(" ")
    assert shown.run("document.activeElement.checked") is False
    assert reached >= {"BUTTON", "INPUT"}


def test_the_command_is_copied_or_selected(shown):
    shown.run("document.querySelector('button.copy').click()")
    outcome = "document.querySelector('button.copy').innerText + getSelection().toString()"
    shown.run("new Promise(done => setTimeout(done, 50))")
    assert shown.run(outcome) in ("Copied", "Copypython -m classification evaluate --config 'digits.yaml' data.limit=3")


def test_without_a_script_everything_is_drawn(browser, page_file):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page_file)
        styles = "getComputedStyle(document.querySelector('{}')).display"
        assert len([run for run in browser.run(SERIES) if run.startswith("g0")]) == 14
        assert browser.run(styles.format("label input")) == browser.run(styles.format(".copy")) == "none"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits(shown, width, tmp_path):
    shown.resize(width)
    assert shown.run("document.documentElement.scrollWidth") == width  # wide tables scroll within it
    shown.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width == width
        assert len(picture.convert("RGB").getcolors(2**24)) > 100
