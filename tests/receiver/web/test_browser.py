"""The page in a browser, as an operator has it: big and small fleets, hostile names, dark mode, a
phone, a keyboard, a screen reader's rules. With TELEMETRY_PICTURES it also takes the pictures of
the documentation into the folder named there (`make pictures`)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.demo import seed as demo
from developer_telemetry.privacy.personal_links import PersonalLinks, PersonalView, page_path
from developer_telemetry.receiver.web.data.queries import today
from tests.support.fleets import (
    add_days,
    add_machines,
    add_refusals,
    add_refused_machines,
    fill,
)
from tests.support.pages import start_lake
from tests.support.receivers import (
    SECRET,
    TOKEN,
    Altered,
    add_connection,
    eventually,
    query,
    report,
)

ADMIN = "an admin token of the test"
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "\"'><img src=x onerror=window.hacked=1>",
    "</td></table><h1>gone</h1>",
    "{{ 7 * 7 }} ${7 * 7} &lt;b&gt;",
    "\u202egnp.exe \u200f\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "very-long-name-" * 16,
]
WIDE, NARROW = (1280, 900), (360, 780)
# How long the page's script waits between two looks; it is wound on here.
LOOK_MS = 8_000


class Patient(Altered):
    """Shows no page before it has all its figures."""

    constants = {"receiver.web.presenter.WAIT_SECONDS": 20}


class Look(NamedTuple):
    """A page in a window of its own, and what its console said."""

    page: Page
    complaints: list[str]

    def assert_well(self) -> None:
        """Nothing was said, nothing ran that should not, and nothing hangs over the edge."""
        assert self.complaints == []
        assert self.page.evaluate("window.hacked") is None
        width, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window

    def assert_accessible(self) -> None:
        """No serious or critical finding of axe's."""
        # Its script runs beside the page's policy, which would refuse it.
        found = Axe().run(self.page).response["violations"]
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        said = [(each["id"], [node["html"] for node in each["nodes"]]) for each in grave]
        assert said == []


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Its sandbox needs rights that root in a container lacks; it sees our own pages only.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Window:
    """Opens pages of one receiver."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url

    @contextmanager
    def look(
        self,
        path: str = "/",
        size: tuple[int, int] = WIDE,
        scheme: Any = "light",
        script: Optional[str] = None,
        **options: Any,
    ) -> Iterator[Look]:
        """The page at `path`, once it has all its figures, and `script` run before its own."""
        width, height = size
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.clock.install()
        if script is not None:
            page.add_init_script(script)
        look = Look(page, [])
        page.on("console", lambda message: look.complaints.append(message.text))
        page.on("pageerror", lambda error: look.complaints.append(str(error)))
        page.goto(self._url + path)
        yield look
        context.close()


def renew(page: Page) -> None:
    """Let the page's script look again, and wait until it has."""
    with page.expect_response(re.compile("/live")):
        page.clock.fast_forward(LOOK_MS)


@pytest.fixture(scope="module")
def hostile(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """A fleet whose every name is an attack, connections' included."""
    folder = tmp_path_factory.mktemp("hostile")
    with start_lake(folder) as lake:
        receiver, url = lake.receiver, lake.url
        add_connection(url, None)
        name = HOSTILE[1].replace("'", "''")
        query(url, f"UPDATE _tool_developer_telemetry_connections SET name = '{name}' WHERE id = 2")
        engine = open_engine(url)
        add_machines(engine, [(name, name, place * 60) for place, name in enumerate(HOSTILE)])
        add_machines(engine, [("ann", "", 1)], connection_id=2)
        add_days(engine, [(name, today(), 6, HOSTILE) for name in HOSTILE])
        add_refusals(engine, [(today(), HOSTILE[0], 5)])
        add_refused_machines(engine, [(name, name, name[:64], 1, 5) for name in HOSTILE])
        engine.dispose()
        eventually(lambda: "onerror" in receiver.client.get("/").text, seconds=20)
        yield Window(browser, receiver.url)


@pytest.fixture(scope="module")
def large(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """5,000 machines."""
    folder = tmp_path_factory.mktemp("large")
    url = f"sqlite:///{folder}/telemetry.db"
    engine = open_engine(url)
    migrate(engine)
    fill(engine, 5_000, today())
    engine.dispose()
    # Many of them have been quiet for long.
    with Patient(url, folder, TELEMETRY_RETIRE_DAYS="0") as receiver:
        yield Window(browser, receiver.url)


LOOKS = pytest.mark.parametrize(
    ("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide-light", "narrow-dark"]
)


@LOOKS
def test_hostile_names_are_shown_and_do_nothing(
    hostile: Window, size: tuple[int, int], scheme: str
) -> None:
    with hostile.look(size=size, scheme=scheme) as look:
        renew(look.page)

        shown = look.page.locator("#machines tbody th bdi").all_text_contents()
        assert sorted(shown) == sorted([*HOSTILE, "ann"])
        assert sorted(look.page.locator("#tools th bdi").all_text_contents()) == sorted(HOSTILE)
        expect(look.page.locator("#connections")).to_contain_text(HOSTILE[1])
        expect(look.page.locator("#refused")).to_contain_text(HOSTILE[0])
        assert look.page.locator("h1").count() == 1
        look.assert_accessible()
        look.assert_well()

        look.page.get_by_role("link", name=HOSTILE[2]).first.click()
        expect(look.page.locator("h1")).to_contain_text(HOSTILE[2])
        look.page.get_by_role("button", name="Retire this machine").click()
        expect(look.page.get_by_role("button", name="Restore this machine")).to_be_visible()
        look.assert_accessible()
        look.page.get_by_role("button", name="Restore this machine").click()
        expect(look.page.get_by_role("button", name="Retire this machine")).to_be_visible()
        look.assert_well()


@LOOKS
@pytest.mark.parametrize("path", ["/refused", "/days", "/set-up"])
def test_hostile_names_do_nothing_on_the_other_pages(
    hostile: Window, path: str, size: tuple[int, int], scheme: str
) -> None:
    with hostile.look(path, size=size, scheme=scheme) as look:
        expect(look.page.locator("main")).to_contain_text(HOSTILE[1])
        assert look.page.locator("h1").count() == 1
        look.assert_accessible()
        look.assert_well()


@LOOKS
def test_5000_machines_are_paged_and_searched(
    large: Window, size: tuple[int, int], scheme: str
) -> None:
    with large.look(size=size, scheme=scheme) as look:
        page = look.page
        expect(page.locator("#overview")).to_contain_text("of 5,000 machines")
        assert page.locator("#machines tbody tr").count() == 20
        look.assert_accessible()

        page.get_by_role("link", name="Developer", exact=True).click()
        expect(page.locator("#machines tbody th").first).to_have_text("developer.0000")
        page.get_by_role("link", name="Next").click()
        expect(page.locator("#machines .pages")).to_contain_text("21 to 40 of 5,000")
        page.get_by_role("searchbox").fill("4321.LOCAL")
        page.get_by_role("searchbox").press("Enter")
        expect(page.locator("#machines tbody th")).to_have_text(["developer.4321"])
        page.get_by_role("searchbox").fill("nobody")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator("#machines")).to_contain_text("No machine matches.")
        look.assert_well()


def test_pictures_have_their_figures_beside_them(large: Window) -> None:
    with large.look() as look:
        page = look.page
        section = page.get_by_role("region", name="Reports by day").first
        expect(section.get_by_role("group", name="Reports by day")).to_be_visible()

        section.locator("summary").click()

        first = section.locator("tbody tr").first
        assert first.locator("td").inner_text() == "5,000"
        # And they stay open while the page goes on.
        renew(page)
        expect(first).to_be_visible()

        first.get_by_role("link").click()
        expect(page.locator("#days")).to_contain_text("1 to 20 of 5,000")


def test_a_bar_leads_to_its_rows(large: Window) -> None:
    with large.look() as look:
        look.page.locator("#reports .bar .value").last.click()
        expect(look.page.locator("h1")).to_have_text("Days of work")
        expect(look.page.locator("#days")).to_contain_text("1 to 20 of 5,000")
        look.assert_well()


def test_dark_mode_is_dark(large: Window) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with large.look(scheme=scheme) as look:
            colour = look.page.evaluate("getComputedStyle(document.body).backgroundColor")
            grounds[scheme] = sum(map(int, re.findall(r"\d+", colour)))

    assert grounds["light"] > 3 * 200
    assert grounds["dark"] < 3 * 50


def test_texts_are_copied_with_one_click(large: Window) -> None:
    rights = ["clipboard-read", "clipboard-write"]
    with large.look("/set-up", permissions=rights) as look:
        page = look.page
        for name in ("install", "install-windows", "curl", "config"):
            button = page.locator(f'[data-copy="{name}"]')
            button.click()
            expect(button).to_have_text("Copied")
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied == page.locator(f"#{name}").inner_text()
            assert "/plugins/developer-telemetry/1/report" in copied
        page.clock.fast_forward(LOOK_MS)
        expect(page.locator('[data-copy="curl"]')).to_have_text("Copy")
        look.assert_well()


def test_texts_are_copied_where_a_browser_gives_no_clipboard(large: Window) -> None:
    without = "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
    with large.look("/set-up", script=without) as look:
        button = look.page.locator('[data-copy="curl"]')
        button.press("Enter")
        expect(button).to_have_text("Copied")
        expect(button).to_be_focused()
        look.assert_well()


def test_a_test_report_is_sent_in_place(large: Window) -> None:
    with large.look("/set-up") as look:
        page = look.page
        page.get_by_role("button", name="Send a test report").click()
        outcome = page.locator("#outcome")
        expect(outcome).to_contain_text("The receiver would store a report.")
        assert outcome.locator("li").count() == 4
        assert page.url.endswith("/set-up")
        look.assert_accessible()
        look.assert_well()


def test_a_keyboard_reaches_everything(large: Window) -> None:
    with large.look() as look:
        page = look.page
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        assert page.url.endswith("#main")
        seen = set()
        for _ in range(90):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 30)"))
        assert {"Which ones", "Why", "Apply", "Show", "Host", "Next", "Set up a machine"} <= seen
        assert {"developer.0000", "CSV of all 5,000", "As a table", "git"} <= seen


def test_without_scripts_everything_is_there(large: Window) -> None:
    with large.look(java_script_enabled=False) as look:
        page = look.page
        expect(page.locator("#overview")).to_contain_text("of 5,000 machines")
        page.get_by_label("Time").select_option("13 weeks")
        page.get_by_role("button", name="Apply").click()
        expect(page.locator("main")).to_contain_text("Days of work reported in 13 weeks")
        with page.expect_download() as started:
            page.get_by_role("link", name="CSV of all").click()
        assert len(started.value.path().read_text().splitlines()) == 5_001
        page.get_by_role("link", name="Set up a machine").first.click()
        page.get_by_role("button", name="Send a test report").click()
        expect(page.locator("h1")).to_have_text("Test report")
        page.get_by_role("link", name="Back to the page").click()
        expect(page.locator("#overview")).to_contain_text("of 5,000 machines")


def test_the_first_report_appears_by_itself(browser: Browser, tmp_path: Path) -> None:
    with start_lake(tmp_path) as lake:
        receiver, url = lake.receiver, lake.url
        connection = add_connection(url)
        with Window(browser, receiver.url).look(size=NARROW) as look:
            page = look.page
            expect(page.locator("h2").first).to_have_text("No machine has reported yet")
            look.assert_accessible()
            body = report("ann", date=today().isoformat(), metrics={"active_hours": 3})
            assert receiver.send(body, connection, TOKEN).status_code == 200
            eventually(lambda: receiver.client.get("/live").json()["empty"] is False, seconds=20)

            page.clock.fast_forward(LOOK_MS)
            expect(page.locator("#machines tbody th")).to_have_text(["ann"])

            # The next one comes without the page being loaded anew.
            page.evaluate("window.same = true")
            receiver.send({**body, "developer": "bea"}, connection, TOKEN)
            eventually(lambda: "bea" in receiver.client.get("/live").text, seconds=20)
            renew(page)
            expect(page.locator("#machines tbody th")).to_have_text(["bea", "ann"])
            assert page.evaluate("window.same") is True

            # And without the receiver it says so, until that is back.
            receiver.stop()
            page.clock.fast_forward(LOOK_MS)
            said = page.locator("#freshness-of-page")
            expect(said).to_contain_text("the receiver does not answer")
            assert all("ERR_CONNECTION_REFUSED" in each for each in look.complaints)
            receiver.start()
            page.clock.fast_forward(4 * LOOK_MS)
            expect(said).to_have_text("updated every 8 seconds")
            look.complaints.clear()
            look.assert_accessible()
            look.assert_well()


def test_an_operator_signs_in_and_out(browser: Browser, tmp_path: Path) -> None:
    with (
        start_lake(tmp_path, TELEMETRY_ADMIN_TOKEN=ADMIN) as lake,
        Window(browser, lake.receiver.url).look() as look,
    ):
        page = look.page
        field = page.get_by_label("Admin token")
        expect(field).to_be_focused()
        look.assert_accessible()
        field.fill("something else")
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the admin token")
        look.assert_accessible()
        look.complaints.clear()  # the browser notes the status
        page.get_by_label("Admin token").fill(ADMIN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("h2").first).to_have_text("No machine has reported yet")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Send a test report").click()
        expect(page.locator("#outcome")).to_contain_text("The receiver would store a report.")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Admin token")).to_be_visible()
        page.goto(lake.receiver.url)
        expect(page.get_by_label("Admin token")).to_be_visible()
        look.assert_well()


@pytest.mark.parametrize(
    ("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"]
)
def test_ones_own_page_is_right_without_a_script(
    hostile: Window, size: tuple[int, int], scheme: str
) -> None:
    # An attack, letters from right to left, and a long name.
    for developer in (HOSTILE[1], *HOSTILE[4:]):
        path = own_page(developer, 1)
        with hostile.look(path, size, scheme) as look:
            expect(look.page.locator("h1")).to_contain_text(developer[:20])
            assert "link=" not in look.page.url
            look.assert_well()
            look.assert_accessible()
            look.page.locator("#days tbody a").first.click()
            expect(look.page.locator("#row-title")).to_be_visible()
            look.assert_well()
            look.assert_accessible()


def own_page(developer: str, connection_id: int) -> str:
    """Return the path of a link to a developer's own page."""
    view = PersonalView(connection_id, developer, int(time.time()) + 600, "an operator")
    return page_path(PersonalLinks(SECRET).make_link(view))


def test_pictures_for_the_documentation(browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("TELEMETRY_PICTURES") or tmp_path / "pictures").absolute()
    url = f"sqlite:///{tmp_path}/telemetry.db"
    engine = open_engine(url)
    migrate(engine)
    made = demo.fleet(developers=24, days=92, seed=1, now=datetime.now(timezone.utc))
    demo.fill(engine, SECRET, made)
    engine.dispose()
    with start_lake(tmp_path) as lake:
        window = Window(browser, lake.receiver.url)
        for name, size, scheme in (
            ("page", (1120, 1000), "light"),
            ("page-dark", (1120, 1000), "dark"),
            ("page-phone", (390, 844), "light"),
        ):
            with window.look(size=size, scheme=scheme) as look:
                look.page.screenshot(path=folder / f"{name}.png")
                look.assert_well()
        with window.look(size=(1120, 1000)) as look:
            for name, title in (("reports", "Reports by day"), ("hours", "Active hours a day")):
                section = look.page.locator(f"section[aria-labelledby={name}-title]")
                expect(section.get_by_role("group", name=title)).to_be_visible()
                section.screenshot(path=folder / f"{name}.png")
            section = look.page.locator("section[aria-labelledby=tools-title]")
            section.screenshot(path=folder / "tools.png")
            look.page.get_by_role("link", name="Which ones").first.click()
            look.page.locator("#machines tbody th a").first.click()
            expect(look.page.get_by_role("group", name="Its reports by day")).to_be_visible()
            look.page.screenshot(path=folder / "machine.png")
        for path, name in (("/refused", "refused"), ("/set-up", "set-up")):
            with window.look(path, size=(1120, 800)) as look:
                look.page.screenshot(path=folder / f"{name}.png")
                look.assert_well()
        [(developer,)] = query(url, "SELECT developer_id FROM _tool_developer_metrics LIMIT 1")
        for name, size in (("own-page", (1120, 1000)), ("own-page-phone", (390, 844))):
            with window.look(own_page(developer, 1), size=size) as look:
                look.page.screenshot(path=folder / f"{name}.png")
                look.assert_well()

    taken = sorted(path.name for path in folder.glob("*.png"))
    assert taken == [
        "hours.png",
        "machine.png",
        "own-page-phone.png",
        "own-page.png",
        "page-dark.png",
        "page-phone.png",
        "page.png",
        "refused.png",
        "reports.png",
        "set-up.png",
        "tools.png",
    ]
