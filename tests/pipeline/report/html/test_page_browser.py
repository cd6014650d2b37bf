"""The pages in a real browser: nothing breaks, nothing is fetched, all can be reached, and it fits."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.records.comparison import ComparisonRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from pipeline.report.html.page import write_comparison, write_report
from tests.pipeline.report.html.conftest import strategy

Make = Callable[..., Any]

SIZES = [(1280, 900), (400, 800)]
SCHEMES = ["light", "dark"]

REACHABLE = """() => [...document.querySelectorAll('a[href], button, select, summary, [tabindex="0"]')]
  .filter(e => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.modebar') &&
    !(e.closest('details:not([open])') && e.tagName !== 'SUMMARY')).length"""
FITTED = """() => [...document.querySelectorAll('.plot')].every(plot =>
  Math.abs(plot.querySelector('.main-svg').getBoundingClientRect().width - plot.clientWidth) < 2)"""
OVERLAPPING = """() => {
  const clipped = (box, e) => { // what its boxes that scroll or clip leave of it
    let { left, right, top, bottom } = box;
    for (; e && e !== document.body; e = e.parentElement) if (getComputedStyle(e).overflow !== 'visible') {
      const edge = e.getBoundingClientRect();
      [left, right] = [Math.max(left, edge.left), Math.min(right, edge.right)];
      [top, bottom] = [Math.max(top, edge.top), Math.min(bottom, edge.bottom)];
    }
    return { left, right, top, bottom };
  };
  const texts = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || e.closest('.unseen, .skip, script, style, noscript')) continue;
    if (!e.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(walk.currentNode);
    for (const box of range.getClientRects()) texts.push([clipped(box, e), walk.currentNode]);
  }
  texts.sort((a, b) => a[0].top - b[0].top);
  const bad = [];
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, b] = [texts[i][0], texts[j][0]];
    if (b.top > a.bottom) break;
    if (texts[i][1] === texts[j][1]) continue; // one that is cut by an ellipsis has two boxes
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2) bad.push([texts[i][1].data, texts[j][1].data]);
  }
  return [texts.length, bad];
}"""
CONTRAST = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return { rgb: m.slice(0, 3), a: m[3] ?? 1 }; };
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.a === 1) return c.rgb; } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest('svg, script, style, noscript, .plot, .skip')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color).rgb), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push([e.className, e.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return poor;
}"""


@pytest.fixture
def run_page(record: Record, enriched: Callable[[Record], Record], tmp_path: Path) -> Path:
    return write_report(enriched(record), tmp_path / "report.html")


@pytest.fixture
def comparison_page(comparison: Callable[..., ComparisonRecord]) -> Path:
    record = comparison()
    return write_comparison(record, Path(record.folder) / "report.html")


@pytest.fixture
def chained_page(chained: Record, tmp_path: Path) -> Path:
    return write_report(chained, tmp_path / "chained.html")


@pytest.fixture(scope="module")
def tab(browser: Any) -> Iterator[Any]:
    """A tab without network; another one would compile plotly anew."""
    context = browser.new_context()
    context.set_offline(True)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all pages are opened; at another address plotly would be compiled anew."""
    return tmp_path_factory.mktemp("opened") / "report.html"


@pytest.fixture
def opened(tab: Any, place: Path) -> Callable[..., Any]:
    """opened(page, width, height, scheme): the page once it is drawn; on leaving nothing may have gone wrong."""

    @contextmanager
    def opening(page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Any]:
        said, fetched = list[str](), list[str]()
        listeners: dict[str, Callable[[Any], Any]] = {
            "console": lambda message: said.append(f"{message.type}: {message.text}"),
            "pageerror": lambda error: said.append(str(error)),
            "dialog": lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()),
            "request": lambda request: fetched.append(request.url),
        }
        tab.goto("about:blank")
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)
        for event, listener in listeners.items():
            tab.on(event, listener)
        try:
            tab.goto(shutil.copy(page, place).as_uri())
            tab.wait_for_selector("html[data-ready]", state="attached")
            yield tab
        finally:
            for event, listener in listeners.items():
                tab.remove_listener(event, listener)
            tab.context.clear_permissions()
        assert said == []
        assert place.as_uri() in fetched
        assert [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))] == []

    return opening


@pytest.mark.parametrize("name", ["run_page", "comparison_page"])
def test_it_is_drawn_and_fits_in_any_size_and_scheme(request: pytest.FixtureRequest, opened: Make, name: str) -> None:
    with opened(request.getfixturevalue(name)) as shown:
        figures = shown.locator("[data-figure]").count()
        assert figures > 0
        assert shown.locator(".plot .main-svg").count() >= figures
        shown.locator("details").evaluate_all("all => all.forEach(e => { e.open = true })")
        for width, height in SIZES:
            shown.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                shown.emulate_media(color_scheme=scheme)
                shown.wait_for_function(FITTED)
                assert shown.evaluate("document.documentElement.scrollWidth") <= width
                assert shown.evaluate(CONTRAST) == []


@pytest.mark.parametrize("name", ["run_page", "comparison_page"])
def test_a_page_that_opens_narrow_and_dark_fits(request: pytest.FixtureRequest, opened: Make, name: str) -> None:
    with opened(request.getfixturevalue(name), 400, 800, "dark") as shown:
        assert shown.evaluate(FITTED)
        assert shown.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("name", ["run_page", "comparison_page"])
def test_the_figures_toolbar_sends_nothing_anywhere(request: pytest.FixtureRequest, opened: Make, name: str) -> None:
    with opened(request.getfixturevalue(name)) as shown:
        windows, asked = list[Any](), list[str]()
        shown.context.on("page", lambda window: windows.append(window))
        shown.context.on("request", lambda request: asked.append(request.url))
        buttons = shown.locator(".modebar").first.locator(".modebar-btn")
        titles = buttons.evaluate_all("all => all.map(e => e.dataset.title)")
        assert "Zoom in" in titles
        assert [title for title in titles if any(word in title for word in ("Share", "Edit", "loud"))] == []
        for title in titles:
            if "Download" not in title:
                shown.locator(f'.modebar-btn[data-title="{title}"]').first.click(force=True)
        assert windows == []
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("name", ["run_page", "comparison_page"])
def test_every_control_works(request: pytest.FixtureRequest, opened: Make, name: str) -> None:
    with opened(request.getfixturevalue(name)) as shown:
        for summary in shown.locator("summary").all():
            summary.click()
            assert summary.evaluate("e => e.parentElement.open")
        for select in shown.locator("select").all():
            for i in range(select.locator("option").count()):
                select.select_option(index=i)
        for button in shown.locator(".legend button").all():
            button.click()
            assert button.get_attribute("aria-pressed") == "false"
            button.click()
            assert button.get_attribute("aria-pressed") == "true"
        for link in shown.locator(".contents a").all():
            link.click()
            assert shown.locator(str(link.get_attribute("href"))).is_visible()


def test_the_selector_changes_the_figure_and_its_words(run_page: Path, opened: Make) -> None:
    with opened(run_page) as shown:
        figure = shown.locator('[data-figure="latency"]')
        reach = "e => e.querySelector('.plot').data[0].x.at(-1)"
        before, words = figure.evaluate(reach), figure.locator("figcaption").inner_text()
        figure.locator("select").select_option(label="onnxruntime, threads 2, batch 1")
        assert figure.evaluate(reach) == pytest.approx(0.8 * before)
        assert words != figure.locator("figcaption").inner_text()
        assert "ratio to the baseline 0.25" in figure.locator("figcaption").inner_text()


def test_the_front_shows_the_axes_that_are_chosen(comparison_page: Path, opened: Make) -> None:
    with opened(comparison_page) as shown:
        front = shown.locator('[data-figure="front"]')
        front.locator("select").select_option(label="latency and retention")
        assert "latency" in front.evaluate("e => e.querySelector('.plot').layout.xaxis.title.text")
        shown.wait_for_function("() => document.querySelector('[data-figure=front] .plot').layout.annotations")
        names = front.evaluate("e => e.querySelector('.plot').layout.annotations.map(a => a.text)")
        assert sorted(names) == ["baseline", "distill", "distill + quantize", "prune", "quantize"]


def test_the_legend_hides_points_and_their_names(comparison_page: Path, opened: Make) -> None:
    with opened(comparison_page) as shown:
        shown.get_by_role("button", name="dominated").click()
        gone = "!document.querySelector('[data-figure=front] .plot').layout.annotations.some(a => a.text === 'prune')"
        shown.wait_for_function(
            f"() => document.querySelector('[data-figure=front] .plot').layout.annotations && {gone}"
        )
        traces = shown.evaluate(
            "document.querySelector('[data-figure=front] .plot').data.map(t => [t.meta, t.visible])"
        )
        assert ["dominated", False] in traces


def test_copy_gives_the_command_to_the_clipboard(run_page: Path, opened: Make) -> None:
    with opened(run_page) as shown:
        shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
        for box in shown.locator(".copied").all():
            box.get_by_role("button").click()
            assert shown.evaluate("navigator.clipboard.readText()") == box.locator("code").inner_text()
            assert box.get_by_role("button").inner_text() == "Copied"
        assert shown.locator("#status").inner_text() == "Copied to the clipboard"


@pytest.mark.parametrize(("name", "width"), [("run_page", 400), ("comparison_page", 1280)])
def test_the_tab_key_reaches_all(request: pytest.FixtureRequest, opened: Make, name: str, width: int) -> None:
    with opened(request.getfixturevalue(name), width) as shown:
        wanted, seen = shown.evaluate(REACHABLE), 0
        shown.keyboard.press("Tab")
        assert shown.evaluate("document.activeElement.className") == "skip"
        assert shown.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        for _ in range(400):
            if shown.evaluate("document.activeElement === document.body"):
                break
            focused = shown.evaluate(
                "() => { const e = document.activeElement; const s = getComputedStyle(e);"
                "return [!!e.closest('.modebar'), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0] }"
            )
            assert focused[1]
            seen += not focused[0]
            shown.keyboard.press("Tab")
        assert seen == wanted


def test_the_skip_link_leads_to_the_verdict(run_page: Path, opened: Make) -> None:
    with opened(run_page) as shown:
        shown.keyboard.press("Tab")
        shown.keyboard.press("Enter")
        assert shown.evaluate("document.activeElement.id") == "verdict"


def test_figures_follow_the_colour_scheme_and_the_legend_stays(run_page: Path, opened: Make) -> None:
    ink = "document.querySelector('[data-figure=trajectory] .plot').layout.font.color"
    with opened(run_page) as shown:
        shown.locator('[data-figure="trajectory"] .legend button').first.click()
        light = shown.evaluate(ink)
        shown.emulate_media(color_scheme="dark")
        shown.wait_for_function(f"() => {ink} !== '{light}'")
        assert shown.evaluate(ink) == shown.evaluate(
            "getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"
        )
        first = shown.locator('[data-figure="trajectory"] .legend button').first
        assert first.get_attribute("aria-pressed") == "false"
        drawn = shown.evaluate("document.querySelector('[data-figure=trajectory] .plot')._fullLayout.paper_bgcolor")
        assert drawn == "rgba(0,0,0,0)"


def test_a_screen_reader_finds_its_way(run_page: Path, opened: Make) -> None:
    with opened(run_page) as shown:
        for role in ("banner", "navigation", "main", "contentinfo"):
            assert shown.get_by_role(role).count() == 1
        assert shown.locator("html").get_attribute("lang") == "en"
        assert shown.locator("th:not([scope])").count() == 0
        assert shown.locator("img:not([alt]), img[alt='']").count() == 0
        assert shown.locator(".figure").count() == shown.locator(".figure > figcaption").count()
        assert shown.locator(".figure").count() == shown.locator(".figure > details table").count()
        unnamed = "e => [...e].filter(x => !(x.innerText || x.ariaLabel || x.labels?.length)).length"
        assert shown.locator("button:not(.modebar button), select, summary").evaluate_all(unnamed) == 0
        assert shown.locator(".plot .main-svg:not([aria-hidden])").count() == 0
        ids = shown.locator("[id]").evaluate_all("all => all.map(e => e.id)")
        assert len(ids) == len(set(ids))


def test_images_are_shown(run_page: Path, opened: Make) -> None:
    with opened(run_page) as shown:
        widths = shown.locator(".examples img").evaluate_all("images => images.map(i => i.naturalWidth)")
        assert widths == [8]


def test_hostile_names_stay_text(
    record: Record,
    enriched: Callable[[Record], Record],
    hostile: str,
    tmp_path: Path,
    opened: Make,
) -> None:
    record = enriched(record)
    record.config["name"], record.warnings, record.notes = hostile, [hostile], [hostile * 20]
    for stage in record.stages:
        stage.name = hostile
    for found in record.stages[-1].classes:
        found.label = hostile
    for confusion in record.flipped.confusions:
        confusion.label = confusion.predicted = hostile
    record.stages[0].reports["training"] = [{"epoch": i, hostile: 1.0, "loss": 2.0} for i in range(3)]
    with opened(write_report(record, tmp_path / "r.html"), 400) as shown:
        assert shown.locator("h1").inner_text() == hostile
        assert shown.locator("img").count() == 1
        assert shown.locator("body script:not([type])").count() == 1
        ticks = shown.locator('[data-figure="classes"] .ytick text').first.text_content()
        assert str(ticks).startswith("<script>")
        assert shown.evaluate("document.documentElement.scrollWidth") <= 400


def test_hostile_names_of_strategies_stay_text(comparison: Make, hostile: str, opened: Make) -> None:
    record = comparison(comparison=hostile.replace("/", ""), choice=hostile, choice_reason=hostile)
    record.strategies[4].name = record.strategies[4].claim = hostile
    with opened(write_comparison(record, Path(record.folder) / "report.html")) as shown:
        shown.wait_for_function("() => document.querySelector('[data-figure=front] .plot').layout.annotations")
        names = shown.locator('[data-figure="front"] .annotation-text').all_text_contents()
        assert any(name.startswith("<script>") for name in names)
        assert shown.locator("img").count() == 0


def test_many_stages_and_long_names_fit(record: Record, tmp_path: Path, opened: Make) -> None:
    long = [record.stages[0].model_copy(update={"position": i, "name": "my_" * 30 + str(i)}) for i in range(12)]
    record.stages = list[StageRecord](long)
    with opened(write_report(record, tmp_path / "r.html")) as shown:
        assert shown.locator(".step").count() == 13
        for width, height in SIZES:
            shown.set_viewport_size({"width": width, "height": height})
            assert shown.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", ["run_page", "comparison_page", "chained_page"])
def test_no_text_covers_another_at_any_width(request: pytest.FixtureRequest, opened: Make, name: str) -> None:
    with opened(request.getfixturevalue(name)) as shown:
        for width in (1280, 768, 390):
            shown.set_viewport_size({"width": width, "height": 900})
            shown.wait_for_function(FITTED)
            shown.wait_for_timeout(400)  # names of points are set after the figure
            count, bad = shown.evaluate(OVERLAPPING)
            assert bad == [], width
            assert count > 100
            assert shown.evaluate("document.documentElement.scrollWidth") <= width


CROSSED = """
() => [...document.querySelectorAll('.scatterlayer path.js-line')].flatMap((line) => {
  const onPage = line.getScreenCTM();
  const step = line.getTotalLength() / 400;
  const points = Array.from({ length: 401 }, (_, i) => line.getPointAtLength(i * step).matrixTransform(onPage));
  const names = [...line.closest('.js-plotly-plot').querySelectorAll('.annotation-text')];
  return names.filter((name) => {
    const box = name.getBoundingClientRect();
    return points.some((at) => at.x > box.left && at.x < box.right && at.y > box.top + 3 && at.y < box.bottom - 3);
  }).map((name) => name.textContent);
})
"""
"""The names of points that a line behind them runs through."""


def test_no_name_stands_on_the_front(comparison: Make, tmp_path: Path, opened: Make) -> None:
    strategies = [
        strategy("baseline", 901_439, 1.0, 1.0, validation_retention=None, retention=None, verdicts=[]),
        strategy("prune", 153_735, 1.006, 0.34, on_front=True),
        strategy("quantize", 230_900, 0.994, 0.42),
        strategy("distill", 7_506, 0.971, 0.08),  # below the line from prune to the next, and on its step
        strategy("distill + quantize", 3_393, 0.971, 0.11, on_front=True, chosen=True),
        strategy("distill + prune + quantize", 2_741, 0.942, 0.12, on_front=True),
    ]
    record = comparison(strategies=strategies, axes=["size", "retention"])
    with opened(write_comparison(record, tmp_path / "c.html")) as shown:
        for width in (1280, 390):
            shown.set_viewport_size({"width": width, "height": 900})
            shown.wait_for_function(FITTED)
            shown.wait_for_timeout(400)
            assert shown.evaluate(CROSSED) == [], width


def test_a_touch_screen_has_no_toolbar_over_its_figures(run_page: Path, browser: Any, place: Path) -> None:
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    shown = context.new_page()
    shown.goto(shutil.copy(run_page, place).as_uri())
    shown.wait_for_selector("html[data-ready]", state="attached")
    assert shown.locator(".plot .main-svg").count() > 0
    assert shown.locator(".modebar-btn").count() == 0
    context.close()


def test_the_bars_of_a_waterfall_lie_where_their_values_do(chained: Record, tmp_path: Path, opened: Make) -> None:
    bars = """() => [...document.querySelectorAll('[data-figure="effects-bytes"] .bars path')].map(e => {
      const box = e.getBBox(); return [box.x, box.x + box.width]; })"""
    scale = """values => { const axis = document.querySelector('[data-figure="effects-bytes"] .plot')._fullLayout.xaxis;
      return values.map(value => axis.d2p(value)); }"""
    sizes = [model.size_bytes for _, model in chained.models[:-1]]  # the last only measured
    with opened(write_report(chained, tmp_path / "r.html")) as shown:
        drawn, at = shown.evaluate(bars), shown.evaluate(scale, sizes)
        ends = [sorted(pair) for pair in pairwise(at)]
        assert [edge for bar in drawn for edge in bar] == pytest.approx([edge for bar in ends for edge in bar], abs=2)


def test_without_javascript_the_tables_are_there(run_page: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(run_page.as_uri())
    assert "The figures need JavaScript" in shown.locator("noscript").inner_text()
    summary = shown.locator('[data-figure="trajectory"] summary')
    summary.click()
    assert shown.locator('[data-figure="trajectory"] table').is_visible()
    assert shown.locator("button.copy").first.is_hidden()
    context.close()
