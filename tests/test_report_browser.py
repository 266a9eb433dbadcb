"""The page of results in a browser: no error, no fetch, arms and axes switch, hover tells mean, SEM and n."""

import io
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import made_results
import pytest
from matplotlib.figure import Figure
from PIL import Image

pytest.importorskip("plotly", reason="plotly is not installed: pip install 'cl_repro[report]'")
pytest.importorskip("selenium", reason="selenium is not installed: pip install 'cl_repro[dev]'")
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from cl_repro.analysis.output.figures import save
from cl_repro.report.page import write_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
DRIVER = shutil.which("chromedriver") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="no browser (Debian and Ubuntu: apt-get install chromium chromium-driver)"
    ),
]
STUDY = "split_mnist_fisher"
PATIENCE = 300  # seconds; a busy machine takes long to read 5 MB of JavaScript
TRACES = "return arguments[0].data.map(t => [t.hovertemplate ?? '', t.visible !== false, t.x])"
HOVER = "return [...document.querySelectorAll('.hovertext tspan.line')].map(line => line.textContent)"
SAID = "return document.readyState === 'complete' && document.querySelector('.plot').textContent"
AXIS = "return [arguments[0].layout.xaxis.title.text, arguments[0]._fullLayout.xaxis.range]"


@pytest.fixture(scope="module")
def urls(tmp_path_factory) -> dict[str, str]:
    """Of the report's files."""
    root: Path = tmp_path_factory.mktemp("results")
    rows = made_results.fisher_rows()
    rows[20] |= {"accuracy": math.nan, "status": "diverged"}
    made_results.write(root / STUDY, rows)
    made_results.write(root / "split_mnist_timing", made_results.timing_rows())
    (root / "figures").mkdir()
    for name, pixels in (("split_mnist_timing", 1920), ("memory_survival", 1280)):
        Image.new("RGB", (pixels, 800), "red").save(root / "figures" / f"{name}.png", dpi=(200, 200))
    save(drawn(), "title", "source", root / "figures" / f"collapse_{STUDY}")
    paths = write_page([], root, root / "report")
    return {path.name: path.as_uri() for path in paths}


def drawn() -> Figure:
    """A wide figure of two panels: the left one red, the right one blue."""
    figure = Figure(figsize=(12.6, 4.9), layout="constrained")
    for axes, colour in zip(figure.subplots(1, 2), ("red", "blue"), strict=True):
        axes.set_facecolor(colour)
    return figure


@contextmanager
def browser(width: int, height: int) -> Iterator[Chrome]:
    """A window of that size; a narrow one is touched."""
    options = ChromeOptions()
    options.binary_location = BROWSER
    options.page_load_strategy = "none"  # waited for below
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    metrics = {"width": width, "height": height, "pixelRatio": 1.0, "touch": width < 600}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    with Chrome(options, ChromeService(DRIVER)) as found:
        found.set_script_timeout(PATIENCE)
        found.command_executor.client_config.timeout = PATIENCE
        yield found


@pytest.fixture(scope="module", params=[(1366, 768), (390, 844)], ids=["laptop", "phone"])
def driver(request, urls) -> Iterator[Chrome]:
    """The page of a benchmark at one size, drawn."""
    with browser(*request.param) as found:
        found.get(urls["split-mnist.html"])
        drawn = "return document.readyState === 'complete' && !!document.querySelector('.plot .main-svg')"
        WebDriverWait(found, PATIENCE).until(lambda one: one.execute_script(drawn))
        yield found


@pytest.fixture
def chart(driver) -> Iterator[WebElement]:
    """The only chart; afterwards as it was."""
    found = driver.find_element(By.CSS_SELECTOR, ".chart")
    yield found
    press(driver, found.find_element(By.CSS_SELECTOR, "[data-all=true]"))
    press(driver, found.find_element(By.CSS_SELECTOR, "input"))


def press(driver: Chrome, element: WebElement) -> None:
    """A click in the middle of the window, where nothing else is."""
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def plot(chart: WebElement) -> WebElement:
    return chart.find_element(By.CSS_SELECTOR, ".plot")


def button(chart: WebElement, label: str) -> WebElement:
    return next(one for one in chart.find_elements(By.CSS_SELECTOR, "[data-arm]") if one.text == label)


def visible(driver: Chrome, chart: WebElement) -> dict[str, bool]:
    """Whether the curve of each arm is drawn."""
    names = {hover: seen for hover, seen, _ in driver.execute_script(TRACES, plot(chart)) if hover}
    return {hover[3 : hover.index("</b>")]: seen for hover, seen in names.items()}


def test_no_errors_nothing_fetched_and_no_overflow(driver) -> None:
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    fetched = driver.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    inner, page = driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert page <= inner
    wide = driver.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.scroll') && e.checkVisibility()).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_buttons_hide_and_show_their_arms(driver, chart) -> None:
    everything = visible(driver, chart)
    assert all(everything.values()) and {"None", "EXACT", "SAMPLE"} <= set(everything)
    exact = button(chart, "EXACT")
    press(driver, exact)
    assert exact.get_attribute("aria-pressed") == "false"
    assert visible(driver, chart) == everything | {"EXACT": False}
    without = len(plot(chart).find_elements(By.CSS_SELECTOR, ".scatterlayer .trace"))
    press(driver, exact)
    assert visible(driver, chart) == everything and exact.get_attribute("aria-pressed") == "true"
    drawn = len(plot(chart).find_elements(By.CSS_SELECTOR, ".scatterlayer .trace"))
    assert drawn - without == 3  # the curve, its band, and the cross of a lost seed
    press(driver, chart.find_element(By.CSS_SELECTOR, "[data-all=false]"))
    assert not any(visible(driver, chart).values())


def test_buttons_work_with_the_keyboard(driver, chart) -> None:
    driver.execute_script("arguments[0].focus()", button(chart, "SAMPLE"))
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert visible(driver, chart)["SAMPLE"] is False


def test_the_axis_switches_title_and_data(driver, chart) -> None:
    before, x = driver.execute_script(AXIS, plot(chart)), driver.execute_script(TRACES, plot(chart))
    press(driver, chart.find_elements(By.CSS_SELECTOR, "input")[1])
    after, moved = driver.execute_script(AXIS, plot(chart)), driver.execute_script(TRACES, plot(chart))
    assert "trace" in after[0] and "trace" not in before[0]
    assert after[1] != before[1]
    for (name, _, old), (_, _, new) in zip(x, moved, strict=True):
        if "EXACT</b>" in name:
            ratios = [b / a for a, b in zip(old, new, strict=True)]
            assert len(set(map("{:.4g}".format, ratios))) == 1 and ratios[0] != 1
    press(driver, chart.find_elements(By.CSS_SELECTOR, "input")[0])
    assert driver.execute_script(TRACES, plot(chart)) == x


def test_hover_tells_mean_sem_and_n(driver, chart) -> None:
    press(driver, chart.find_element(By.CSS_SELECTOR, "[data-all=false]"))
    press(driver, button(chart, "EXACT"))
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot(chart))
    touch = driver.execute_script("return matchMedia('(pointer: coarse)').matches")

    def pointed_at(_: Chrome) -> list[str]:
        """Point at the seventh value and read what is shown; a chart that is drawn meanwhile makes it begin anew."""
        point = plot(chart).find_elements(By.CSS_SELECTOR, ".scatterlayer .points path")[6]
        finger = ActionBuilder(driver, mouse=PointerInput("touch" if touch else "mouse", "pointer"))
        finger.pointer_action.move_to(point)
        if touch:
            finger.pointer_action.pointer_down().pointer_up()
        finger.perform()
        return driver.execute_script(HOVER)

    patient = WebDriverWait(driver, PATIENCE, ignored_exceptions=[StaleElementReferenceException, IndexError])
    lines = patient.until(pointed_at)
    assert lines[:2] == ["EXACT", "λ = 1e6"]
    assert lines[2].startswith("mean 9") and lines[3].startswith("SEM 0.") and lines[4] == "n = 5 seeds"


@pytest.mark.parametrize("size", [(1366, 768), (390, 844)], ids=["laptop", "phone"])
def test_pictures_keep_the_proportions_of_their_letters(urls, size) -> None:
    widths = []
    with browser(*size) as found:
        for file in ("split-mnist.html", "how-methods-work.html"):
            found.get(urls[file])
            image = WebDriverWait(found, PATIENCE).until(lambda one: one.find_element(By.CSS_SELECTOR, "main img"))
            WebDriverWait(found, PATIENCE).until(lambda one: one.execute_script("return document.images[0].complete"))
            widths.append(image.rect["width"])
    assert len(widths) == 2 and widths[0] >= 700
    assert widths[0] / widths[1] == pytest.approx(1920 / 1280, rel=0.02)


def test_a_browser_that_cannot_unpack_the_charts_says_so(urls) -> None:
    with browser(800, 600) as found:
        old = {"source": "delete window.DecompressionStream"}
        found.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", old)
        found.get(urls["split-mnist.html"])
        said = WebDriverWait(found, PATIENCE).until(lambda one: one.execute_script(SAID))
        assert said == "The chart needs a browser of 2023 or later; its numbers are in the table below."
        assert [entry for entry in found.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.fixture(scope="module", params=[(1366, 768), (390, 844)], ids=["laptop", "phone"])
def index(request, urls) -> Iterator[Chrome]:
    """The first page at one size."""
    with browser(*request.param) as found:
        found.get(urls["index.html"])
        complete = "return document.readyState === 'complete' && [...document.images].every(one => one.complete)"
        WebDriverWait(found, PATIENCE).until(lambda one: one.execute_script(complete))
        yield found


def test_the_first_screen_has_what_was_found_its_figure_and_on_a_laptop_the_verdicts(index) -> None:
    assert [entry for entry in index.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    height, width, page = index.execute_script("return [innerHeight, innerWidth, document.documentElement.scrollWidth]")
    assert page <= width
    paragraph = index.find_element(By.CSS_SELECTOR, "header p")
    assert paragraph.text.startswith("Does it matter how the Fisher of EWC is computed?")
    shown = "img" if width > 600 else ".panel"
    figure = index.find_element(By.CSS_SELECTOR, f".headline {shown}")
    assert figure.is_displayed()
    assert paragraph.rect["y"] < figure.rect["y"] and figure.rect["y"] + figure.rect["height"] <= height
    if width > 600:
        bar = index.find_element(By.CSS_SELECTOR, ".bar")
        assert bar.rect["y"] + bar.rect["height"] <= height


def test_panels_stand_one_below_the_other_on_a_phone_alone(index) -> None:
    left, right = index.find_elements(By.CSS_SELECTOR, ".headline .panel")
    picture = index.find_element(By.CSS_SELECTOR, ".headline img")
    narrow = index.execute_script("return innerWidth < 600")
    assert left.is_displayed() == right.is_displayed() == narrow != picture.is_displayed()
    if narrow:
        assert left.rect["x"] == right.rect["x"] and left.rect["y"] + left.rect["height"] <= right.rect["y"]
        assert left.rect["width"] > 0.9 * index.execute_script("return innerWidth")
        colours = [middle(one) for one in (left, right)]
        assert colours[0][0] > 2 * colours[0][2] and colours[1][2] > 2 * colours[1][0]


def middle(element: WebElement) -> tuple[int, ...]:
    """The colour in the middle of an element, as it is shown."""
    with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
        return image.convert("RGB").getpixel((image.width // 2, image.height // 2))


def test_ours_and_the_verdict_are_in_sight_beside_the_name_of_their_row(driver) -> None:
    wide = driver.execute_script("return innerWidth")
    table = driver.find_element(By.CSS_SELECTOR, f"#{STUDY}-1-accuracy")
    heads = [head.text for head in table.find_elements(By.CSS_SELECTOR, "thead th")]
    assert heads[:3] == ["Arm", "ours, %", "verdict, van de Ven (2025)"]
    for cell in table.find_elements(By.CSS_SELECTOR, "thead th")[:3]:
        assert cell.rect["x"] + cell.rect["width"] <= wide


def test_a_link_leads_back_to_the_top(driver) -> None:
    driver.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
    driver.find_element(By.CSS_SELECTOR, ".top").click()
    WebDriverWait(driver, PATIENCE).until(lambda one: one.execute_script("return scrollY") == 0)
