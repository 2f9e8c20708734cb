"""The page as a reader uses it, in a real browser: charts, tooltips, sorting and filtering, light and dark, phone."""

import shutil

import pytest

from finetune import report
from tests.helpers import reports

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATH = next(filter(None, map(shutil.which, _BROWSERS)), None)
pytestmark = pytest.mark.skipif(_PATH is None, reason="no Chromium is in PATH")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    workdir = reports.write_study(tmp_path_factory.mktemp("browser") / "study")
    report.write(workdir, refresh=3600)
    return (workdir / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=_PATH, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    made.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda request: request.url == address or complaints.append(f"asked for {request.url}"))
    made.goto(address)
    made.wait_for_selector("body[data-drawn]", timeout=60_000)
    yield made
    made.close()
    assert complaints == []


def column(page, name):
    names = page.locator("#table th button").all_text_contents()
    return page.locator(f"#table tbody td:nth-child({names.index(name) + 1})").all_text_contents()


def test_every_chart_is_drawn_and_a_point_tells_its_run(page):
    places = page.locator(".chart")
    assert places.count() == page.locator(".chart svg").count() > 8
    figure = page.locator("figure", has_text="learning_rate:").first
    figure.scroll_into_view_if_needed()
    figure.locator(".mark-symbol path").first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for(timeout=10_000)
    assert "learning_rate" in tooltip.inner_text()


def test_table_is_sorted_by_mouse_and_by_keyboard(page):
    header = page.locator("#table th", has_text="learning_rate")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    rates = list(map(float, column(page, "learning_rate")))
    assert rates == sorted(rates)
    assert len(rates) == 24
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert list(map(float, column(page, "learning_rate"))) == rates[::-1]
    page.locator("#table th", has_text="val accuracy").locator("button").click()
    values = column(page, "val accuracy")
    assert values[-3:] == ["\u2013"] * 3  # diverged runs come last
    assert values[:21] == sorted(values[:21], reverse=True)


@pytest.mark.parametrize(
    "words, ids",
    [
        ("0.01-0.1-2", {"0.01-0.1-2"}),
        ("diverged", {f"0.1-0.1-{seed}" for seed in range(3)}),
        ("learning_rate>=0.01 weight_decay=0 seed<1", {"0.01-0-0", "0.1-0-0"}),
        ("nothing-of-this-name", set()),
    ],
)
def test_table_is_filtered(page, words, ids):
    page.locator("#filter").fill(words)
    assert set(column(page, "id")) == ids
    assert page.locator("#seen").inner_text() == f"{len(ids)} of {len(ids)} runs shown"


def test_an_id_is_copied(page):
    button = page.locator("#table td.id button").first
    button.click()
    assert button.inner_text() == "copied"


def test_a_phone_and_the_dark_show_all_of_it(browser, address):
    phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    phone.goto(address)
    phone.wait_for_selector("body[data-drawn]", timeout=60_000)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    ink, paper = (phone.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    lightness = [sum(map(int, colour[4:-1].split(","))) for colour in (ink, paper)]
    assert lightness[0] > 600 > 150 > lightness[1]
    label = phone.locator(".chart svg .role-axis-title text").first
    assert label.evaluate("each => getComputedStyle(each).fill") == "rgb(154, 165, 177)"  # the dark palette's
    phone.close()
