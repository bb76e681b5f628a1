"""The console in a real Chromium, on a gateway with its own database user's rights."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from granted import users
from house import House, wait_until
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from portcullis.cli.main import cli
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from portcullis.store.schema import requests
from tests.chromium import PATIENCE_MS, chromium
from tests.conftest import MariaDb

pytestmark = [pytest.mark.xdist_group("console"), pytest.mark.timeout(300)]

PAGES = ("", "/devices/7", "/carousel", "/keys", "/refusals", "/search?q=nothing", "/devices/99")
DESKTOP, PHONE = (1200, 900), (390, 844)
_CLASSES = """
name = "fresh"
every = "1s"
airings = 5
[[cycler.stream.class]]
name = "recent"
every = "30s"
airings = 20
min_share = 0.1
[[cycler.stream.class]]
name = "steady"
every = "30min"
min_share = 0.3
"""


class Desk:
    """A head-end with orders on air, and people who may look at it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.url = f"http://127.0.0.1:{house.api}"
        self.passwords = {
            name: json.loads(self.command("console", "add", name, "--role", role))["password"]
            for name, role in (("anna", "help-desk"), ("vera", "viewer"))
        }

    def command(self, *words: str) -> str:
        """Run a command of the console; returns what it printed."""
        environ = {
            "PORTCULLIS_GATEWAY__OAUTH_DIR": f"{self.house.home}/oauth",
            "PORTCULLIS_KEYS__ENCRYPTOR": self.house.encryptor,
        }
        options = ["--config", str(self.house.config), "--json"]
        done = CliRunner(env=environ).invoke(cli, [*words, *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    def sign_in(self, page: Page, name: str = "anna") -> None:
        """By the form."""
        page.goto(f"{self.url}/console")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(self.passwords[name])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()


@pytest.fixture(scope="module")
def desk(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Boxes 7 and 1001 to 1008; products, a text and refusals; all of it on air."""
    url = mariadb.new_database()
    engine = engine_for(url)
    migrate(engine)
    engine.dispose()
    house = House(tmp_path_factory.mktemp("desk"), url)
    text = house.config.read_text()
    house.config.write_text(re.sub(r'name = "always"\nevery = "200ms"\n', _CLASSES, text))
    with users(url) as urls:
        try:
            house.start_ready("encryptor", "mux")
            house.import_boxes(7, *range(1001, 1009))
            oauth = {"gateway__oauth_dir": f"{house.home}/oauth"}
            for name in ("gateway", "emmg", "cycler", "scheduler"):
                house.start(name, database__url=urls[name], **oauth)
            for room in house.rooms:
                room.wait_ready()
            _order(house)
            yield Desk(house)
        finally:
            house.close()


def _order(house: House) -> None:
    with house.sms() as sms:
        for product_id, name in ((101, "Sport"), (102, "Cinema & <Series>")):
            sms.put(f"/products/{product_id}", json={"name": name})
        lines: list[dict[str, object]] = []
        for device in (7, *range(1001, 1009)):
            lines += [
                {"op": "adddevice", "device_id": str(device)},
                {"op": "addentitlement", "device_id": str(device), "product_id": 101},
            ]
        ahead = {"starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-02-01T00:00:00Z"}
        lines += [
            {"op": "addentitlement", "device_id": "7", "product_id": 102} | ahead,
            {"op": "generateosm", "device_id": "7", "text": "<b>Hello</b>", "duration_s": 0},
            {"op": "adddevice", "device_id": "7"},
            {"op": "addentitlement", "device_id": "7", "product_id": 999},
        ]
        body = "\n".join(
            json.dumps(line | {"transaction_id": f"t-{number}"})
            for number, line in enumerate(lines)
        )
        assert sms.post("/batch", content=body).status_code == 200

        def is_on_air() -> bool:
            said = [
                sms.get("/requests", params={"transaction_id": f"t-{number}"}).json()["status"]
                for number in (0, 1, 17, 18)
            ]
            return set(said) == {"on_air"}

        wait_until(is_on_air, "the orders on air")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with chromium() as browser:
        yield browser


def _new_page(browser: Browser, size: tuple[int, int] = DESKTOP, **options: Any) -> Page:  # noqa: ANN401 (Playwright's)
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, **options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    return page


def test_a_rotation_under_way_is_shown_as_far_as_it_is(desk: Desk, browser: Browser) -> None:
    """How many of the boxes have been given the next key."""
    page = _new_page(browser)
    desk.sign_in(page)
    with desk.house.sms() as sms:
        assert sms.put("/products/103", json={"name": "News"}).is_success
        grant = {"transaction_id": "news", "device_id": "1008", "product_id": 103}
        assert sms.post("/addentitlement", json=grant).is_success
    page.goto(f"{desk.url}/console/keys")
    expect(page.get_by_role("row", name="103 News")).to_be_visible()
    desk.command("keys", "rotate", "--product", "103", "--now")
    news = page.locator("section").filter(has_text="Product 103 News to epoch")
    expect(news).to_contain_text("Sealed: 1 of 1 boxes")
    expect(news.get_by_role("progressbar", name="Sealed")).to_have_attribute("value", "1")
    expect(news).to_contain_text("cycles aired since all were sealed")
    page.context.close()


def test_the_help_desk_finds_a_box_and_sends_it_again(desk: Desk, browser: Browser) -> None:
    """By its keyboard alone; who did it stands in the record, and the order goes on air."""
    page = _new_page(browser)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{desk.url}/console/devices/7")
    page.keyboard.type("anna")  # the first field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type(desk.passwords["anna"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Device 7 active")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    box = page.get_by_label("Device, transaction id or request id")
    while not box.evaluate("node => node === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("1001")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Device 1001 active")).to_be_visible()
    again = page.get_by_role("button", name="Send again now")
    while not again.evaluate("node => node === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Sent again")
    latest = page.locator("article.request").first
    expect(latest).to_contain_text("rehit")
    expect(latest).to_contain_text("by anna")
    expect(latest.locator(".badge")).to_have_text("on air")  # the page brings itself up to date
    assert complaints == []
    engine = engine_for(desk.house.url)
    with engine.connect() as connection:
        row = connection.execute(
            select(requests).where(requests.c.kind == "rehit", requests.c.device_id == 1001)
        ).one()
    engine.dispose()
    assert (row.client_id, json.loads(row.body)["by"]) == ("console", "anna")
    page.context.close()


def test_a_life_stands_on_one_line(desk: Desk, browser: Browser) -> None:
    """Found by its transaction; what was refused says why; texts of others are text."""
    page = _new_page(browser)
    desk.sign_in(page)
    page.goto(f"{desk.url}/console/search?q=t-0")
    expect(page.locator(".life li")).to_have_count(3)
    expect(page.locator(".life li.done time")).to_have_count(3)
    tops = [item.bounding_box() for item in page.locator(".life li").all()]
    assert len({round(box["y"]) for box in tops if box}) == 1
    page.goto(f"{desk.url}/console/devices/7")
    expect(page.get_by_role("row", name="101 Sport")).to_contain_text("held")
    expect(page.get_by_role("row", name="102 Cinema & <Series>")).to_contain_text("ahead")
    expect(page.get_by_text("<b>Hello</b>")).to_be_visible()
    expect(page.get_by_text("within").first).to_be_visible()
    page.goto(f"{desk.url}/console/refusals")
    expect(page.get_by_role("row").filter(has_text="unknown_product")).to_have_count(1)
    page.goto(f"{desk.url}/console/carousel")
    expect(page.get_by_role("img", name=re.compile("Bandwidth from"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^recent|^fresh"))).to_have_count(2)
    page.goto(f"{desk.url}/console/keys")
    expect(page.get_by_role("row", name="101 Sport")).to_be_visible()
    page.context.close()


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_no_page_shuts_anybody_out(
    desk: Desk, browser: Browser, size: tuple[int, int], scheme: str
) -> None:
    """No finding of axe on any page, light or dark; no phone scrolls sideways."""
    page = _new_page(browser, size, color_scheme=scheme)
    page.goto(f"{desk.url}/console/login")
    findings = {"login": _findings(page)}
    desk.sign_in(page, "vera")
    for path in PAGES:
        page.goto(f"{desk.url}/console{path}")
        findings[path] = _findings(page)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} px too wide"
    assert {path: found for path, found in findings.items() if found} == {}
    page.context.close()


def _findings(page: Page) -> list[str]:
    result = Axe().run(page)
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in result.response["violations"]]


def test_everything_is_there_without_script(desk: Desk, browser: Browser) -> None:
    """Signing in, finding, sending again, signing out."""
    page = _new_page(browser, PHONE, java_script_enabled=False)
    desk.sign_in(page)
    page.get_by_label("Device, transaction id or request id").fill("1002")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("button", name="Send again now").click()
    expect(page.get_by_role("status")).to_contain_text("Sent again")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{desk.url}/console/keys")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.context.close()


@pytest.fixture
def anna(desk: Desk) -> Iterator[httpx.Client]:
    """Anna's session without a browser, to do what a browser would not."""
    with _session(desk, "anna") as client:
        yield client


@contextmanager
def _session(desk: Desk, name: str) -> Iterator[httpx.Client]:
    headers = {"Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=desk.url, timeout=60, headers=headers) as client:
        form = {"name": name, "password": desk.passwords[name], "next": "//evil.example"}
        answer = client.post("/console/login", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-portcullis=")
        for flag in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
            assert flag in cookie
        client.headers["Cookie"] = cookie.partition(";")[0]
        yield client


def test_forms_of_others_and_people_without_the_role_do_nothing(
    desk: Desk, anna: httpx.Client
) -> None:
    """Neither another site's form nor one without its token; twice is once."""
    page = anna.get("/console/devices/1003").text
    fields = dict(re.findall(r'name="(csrf|once)" value="(\w+)"', page))
    path = "/console/devices/1003/rehit"
    crossing = {"Sec-Fetch-Site": "cross-site"}
    assert anna.post(path, data=fields, headers=crossing).status_code == 403
    assert anna.post(path, data=fields | {"csrf": "0"}).status_code == 403
    assert anna.post(path, data=fields | {"once": "1"}).status_code == 422
    with _session(desk, "vera") as vera:
        page = vera.get("/console/devices/1003").text
        assert "Send again" not in page
        own = dict(re.findall(r'name="(csrf)" value="(\w+)"', page))
        assert vera.post(path, data=own | {"once": "0" * 32}).status_code == 403
        assert vera.post(path, data=fields).status_code == 403
    sent = [anna.post(path, data=fields) for _ in range(2)]
    assert [answer.status_code for answer in sent] == [303, 303]
    assert sent[0].headers["location"] == sent[1].headers["location"]
    log = (desk.house.home / "requests.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in log if '"console/devices"' in line]
    assert {(one["by"], one["outcome"]) for one in said if one["path"] == path} == {
        ("anna", "not_permitted"),
        ("anna", "invalid_value"),
        ("vera", "insufficient_scope"),
        ("vera", "not_permitted"),
        ("anna", "ok"),
    }


def test_a_session_ends_with_its_person_and_cannot_be_forged(
    desk: Desk, anna: httpx.Client
) -> None:
    """Nothing is shown without one; every answer carries the strict policy."""
    shown = anna.get("/console")
    assert shown.status_code == 200
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert "unsafe" not in shown.headers["content-security-policy"]
    assert shown.headers["cache-control"] == "no-store"
    good = anna.headers["Cookie"]
    head, payload, signature = good.split(".")
    forged = [f"{head}.{payload[:-2]}AA.{signature}", f"{head}.{payload}.", "__Host-portcullis=x"]
    for cookie in forged:
        answer = anna.get("/console/devices/7", headers={"Cookie": cookie})
        assert answer.headers["location"] == "/console/login?next=%2Fconsole%2Fdevices%2F7"
    desk.command("console", "add", "eva", "--role", "viewer")
    desk.passwords["eva"] = json.loads(desk.command("console", "add", "eva", "--role", "viewer"))[
        "password"
    ]
    with _session(desk, "eva") as eva:
        assert eva.get("/console").status_code == 200
        desk.command("console", "remove", "eva")
        assert eva.get("/console").status_code == 303


def test_passwords_cannot_be_tried_fast(desk: Desk) -> None:
    """A wrong one is 401, too many at once 429; another site's form is 403."""
    with httpx.Client(base_url=desk.url, timeout=60) as client:
        form = {"name": "nobody", "password": "guess"}
        own = {"Origin": desk.url}
        with ThreadPoolExecutor(20) as pool:
            tries = [
                pool.submit(client.post, "/console/login", data=form, headers=own)
                for _ in range(20)
            ]
        assert {one.result().status_code for one in tries} == {401, 429}
        other = client.post("/console/login", data=form, headers={"Origin": "https://x.example"})
        assert other.status_code == 403
        assert client.post("/console/login", data=form).status_code == 403
        assert client.get("/console/static/../people.py").status_code == 404
