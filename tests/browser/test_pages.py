"""Each page with the live simulator: it says what there is, in two languages and two themes, for everybody."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.browser import MACHINES, a_pump, opened, violations
from tests.support.platform import Platform


def golden(canvas: Locator) -> int:
    """Pixels of a canvas in the colour of lines."""
    return int(
        canvas.evaluate(
            """(each) => {
                const { data } = each.getContext("2d").getImageData(0, 0, each.width, each.height);
                let count = 0;
                for (let i = 0; i < data.length; i += 4) count += data[i + 3] > 200 && data[i] - data[i + 2] > 60;
                return count;
            }"""
        )
    )


def test_plant_page_shows_every_machine_live(page: Page, plant: Platform) -> None:
    """The plant page lists every machine with live values and totals of energy, carbon and water."""
    opened(page, plant)
    expect(page).to_have_title("Plant · AurumAI")
    rows = page.locator("tr.machine")
    expect(rows).to_have_count(MACHINES)
    a_pump(page)
    expect(page.locator(".connection")).to_have_text("Live")
    expect(rows.first.locator(".badge")).to_have_text(re.compile("running|fault"))
    expect(rows.first.locator(".values")).to_contain_text("Bearing temperature")
    expect(page.locator("[data-tile=machines] b")).to_have_text(str(MACHINES))
    for tile in ("energy", "carbon", "water"):
        expect(page.locator(f"[data-tile={tile}] b")).to_have_text(re.compile(r"\d"))
    before = rows.first.locator(".values").inner_text()
    expect(rows.first.locator(".values")).not_to_have_text(before)


def test_machine_table_is_searched_and_sorted(page: Page, plant: Platform) -> None:
    """The machine table can be searched by name and sorted, also with the keyboard."""
    opened(page, plant)
    name = a_pump(page)
    page.get_by_label("Search").fill(name)
    expect(page.locator("tr.machine")).to_have_count(1)
    expect(page.locator(".count-line")).to_have_text(f"1 of {MACHINES} machines")
    page.get_by_label("Search").fill("nothing like it")
    expect(page.get_by_text("No machine matches")).to_be_visible()
    page.get_by_label("Search").fill("")
    heading = page.get_by_role("columnheader", name="Machine", exact=True)
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    names = page.locator("tr.machine th").all_inner_texts()
    assert names == sorted(names)
    heading.get_by_role("button").press("Enter")
    expect(heading).to_have_attribute("aria-sort", "descending")


def test_machine_page_shows_prediction_factors_and_advice(page: Page, plant: Platform) -> None:
    """A machine's page shows prediction, factors, advice and charts, and records maintenance."""
    opened(page, plant)
    name = a_pump(page)
    page.locator("tr.machine a", has_text=name).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page).to_have_url(f"{plant.api}/machines/{name}")
    expect(page.locator(".machine-head")).to_contain_text("90 % range")
    expect(page.locator("[data-card=why] li")).to_have_count(5)
    expect(page.locator("[data-card=why]")).to_contain_text(re.compile("raises the risk|lowers the risk"))
    options = page.locator("[data-card=advice] tbody tr")  # now, perhaps later, and at the failure
    expect(options.first).to_contain_text("now")
    expect(options.last).to_contain_text("failure")
    expect(page.locator("[data-card=advice]")).to_contain_text("kg CO₂e")
    expect(page.locator("[data-card=use]")).to_contain_text("kWh")
    expect(page.locator("[data-sensor=vibration_mm_s] canvas")).to_be_visible()
    expect(page.locator("[data-sensor=vibration_mm_s] canvas")).to_have_attribute(
        "aria-label", re.compile(r"Vibration: \d")
    )
    assert golden(page.locator("[data-sensor=vibration_mm_s] canvas")) > 200, "the chart has no line"
    page.get_by_label("What was done").fill("Bearing replaced")
    page.get_by_role("button", name="Record").click()
    expect(page.locator("[data-card=maintenance] li").first).to_contain_text("Bearing replaced")


def test_prediction_links_to_its_trace_and_logs(page: Page, plant: Platform) -> None:
    """A prediction links to its trace and its logs by trace id."""
    opened(page, plant)
    name = a_pump(page)
    with page.expect_response(re.compile("/explanation")) as answer:
        opened(page, plant, f"/machines/{name}")
    trace_id = answer.value.json()["prediction"]["trace_id"]
    links = page.locator("[data-card=why] .links a")
    expect(links.first).to_have_attribute("href", f"http://127.0.0.1:16686/trace/{trace_id}")
    expect(links.last).to_have_attribute("href", f"http://127.0.0.1:3000/explore?trace={trace_id}")


def test_chart_zooms_by_dragging_and_returns_to_live(page: Page, plant: Platform) -> None:
    """Dragging over a chart requests that range, and the Live button returns to live data."""
    opened(page, plant)
    name = a_pump(page)
    opened(page, plant, f"/machines/{name}")
    over = page.locator("[data-sensor=vibration_mm_s] .u-over")
    expect(over).to_be_visible()
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 40, steps=5)
    with page.expect_request(re.compile(r"/metrics\?.*end=")) as asked:
        page.mouse.up()
    assert asked.value.method == "GET"
    expect(page.locator(".range-label")).not_to_be_empty()
    page.get_by_role("button", name="Earlier").press("Enter")
    page.get_by_role("button", name="Live").click()
    expect(page.locator(".range-label")).to_have_text("")


@pytest.mark.parametrize("path", ["/", "/machines/PUMP", "/alarms", "/platform"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_pass_accessibility_checks(page: Page, plant: Platform, path: str, theme: str) -> None:
    """axe-core finds no violation of WCAG 2.2 AA or best practices on any page in either theme."""
    opened(page, plant)
    name = a_pump(page)
    page.locator("[data-choice=theme]").select_option(theme)
    opened(page, plant, path.replace("PUMP", name))
    if "PUMP" in path:
        expect(page.locator("[data-card=advice] tbody tr").nth(1)).to_be_visible()
        expect(page.locator("[data-sensor=vibration_mm_s] canvas")).to_be_visible()
    if path == "/platform":
        expect(page.locator("[data-instance=prediction]").first).to_be_visible()
    assert violations(page) == []


def test_spanish_console_has_no_untranslated_key(page: Page, plant: Platform) -> None:
    """The Spanish console shows Spanish labels and no raw text key on any page."""
    opened(page, plant)
    name = a_pump(page)
    page.locator("[data-choice=language]").select_option("es")
    expect(page.get_by_role("navigation").get_by_role("link", name="Alarmas")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "es"
    expect(page.locator("tr.machine .values").first).to_contain_text("Temperatura del rodamiento")
    for path, words in (
        ("/alarms", "Su nombre"),
        ("/platform", "Cortacircuitos"),
        (f"/machines/{name}", "Factores de riesgo"),
    ):
        opened(page, plant, path)
        expect(page.get_by_text(words).first).to_be_visible()
        texts = page.locator("body").inner_text()
        assert not re.search(r"\b[a-z]+\.[a-z]+\.[a-z_]+\b", texts.replace(name, "")), "a key has no text"


def test_machine_page_is_reachable_by_keyboard(page: Page, plant: Platform) -> None:
    """The skip link comes first, and a machine's page opens with the keyboard alone."""
    opened(page, plant)
    name = a_pump(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    link = page.locator("tr.machine a", has_text=name)
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == name:
            break
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    page.go_back()
    expect(page).to_have_title("Plant · AurumAI")


def test_tablet_shows_key_columns_without_sideways_scroll(page: Page, plant: Platform) -> None:
    """A tablet shows risk, remaining life and status of a machine without scrolling sideways."""
    page.set_viewport_size({"width": 768, "height": 1024})
    opened(page, plant)
    name = a_pump(page)
    row = page.locator("tr.machine", has_text=name)
    for part in (".risk", ".life", ".badge"):
        expect(row.locator(part).first).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


def test_page_of_unknown_machine_says_so(page: Page, plant: Platform, watched: object) -> None:
    """The page of an unknown machine says that there is no such machine."""
    page.goto(f"{plant.api}/machines/nobody")
    watched.expected = ["404"]  # type: ignore[attr-defined]
    expect(
        page.get_by_text("There is no machine nobody.").or_(page.get_by_text("nobody is not").first).first
    ).to_be_visible()
