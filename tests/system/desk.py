"""The operator of a whole head-end: the commands and the console, as the documentation has them."""

import json
from typing import Any

from playwright.sync_api import expect

from tests.chromium import PATIENCE_MS, chromium
from tests.faults.headend import HeadEnd

_MONITORED = ("gateway", "emmg", "encryptor", "cycler", "scheduler", "mux", "auditor")
_PERSON = "anna"


class Desk:
    """Commands under the database users that docs/operations/database.md gives them."""

    def __init__(self, head_end: HeadEnd) -> None:
        self._head_end = head_end
        monitors = "".join(
            f'[{room}]\nmonitor = "127.0.0.1:{head_end.monitors[head_end.names[room][0]]}"\n'
            for room in _MONITORED
        )
        head_end.config("operator").write_text(
            monitors + head_end.plan.database("operator"), encoding="utf-8"
        )
        person = self.one("console", "add", _PERSON, "--role", "help-desk", as_="gateway1")
        self._password: str = person["password"]

    def rows(self, *words: str, as_: str = "operator") -> list[dict[str, Any]]:
        """What a command answers, a line each."""
        said = self._head_end.run(*words, "--json", config=self._head_end.config(as_))
        return [json.loads(line) for line in said.splitlines()]

    def one(self, *words: str, as_: str = "operator") -> dict[str, Any]:
        """The same of one that answers with one thing."""
        [row] = self.rows(*words, as_=as_)
        return row

    def status(self) -> dict[str, Any]:
        """`portcullis status`."""
        return self.one("status")

    def chains(self, product_id: int) -> list[dict[str, Any]]:
        """The key chains of a product by `keys list`, the oldest first."""
        rows = self.rows("keys", "list", as_="keys")
        return [row for row in rows if row.get("product_id") == product_id and "first_epoch" in row]

    def send_again(self, device_id: str) -> None:
        """`portcullis device rehit`."""
        self.one("device", "rehit", device_id, as_="keys")

    def sent_again(self, device_id: str) -> int:
        """How many of a box's re-hits are on air, by `device show`."""
        life = self.one("device", "show", device_id)
        return [(one["kind"], one["status"]) for one in life["requests"]].count(("rehit", "on_air"))

    def send_again_by_console(self, device_id: str, transaction_id: str) -> None:
        """Sign in through the load balancer; find an order and its box; have it sent again."""
        with chromium() as browser:
            page = browser.new_context(
                base_url=f"https://127.0.0.1:{self._head_end.api_port}", ignore_https_errors=True
            ).new_page()
            page.set_default_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)
            page.goto("/console")
            page.get_by_label("Name").fill(_PERSON)
            page.get_by_label("Password").fill(self._password)
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            page.get_by_label("Device, transaction id or request id").fill(transaction_id)
            page.get_by_role("button", name="Find").click()
            expect(page.locator(".life li.done time")).to_have_count(3)
            page.goto(f"/console/devices/{device_id}")
            expect(page.get_by_role("heading", name=f"Device {device_id} active")).to_be_visible()
            page.get_by_role("button", name="Send again now").click()
            expect(page.get_by_role("status")).to_contain_text("Sent again")
