"""The gateway process behind an authorization server that is not ours, its keys rolling over."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from authorization_server import AUDIENCE, authorization_server, token_of
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from demo.headend import free_ports
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from tests.system.newcomer import blocks

CONFIG = """\
[database]
url = "sqlite:///{home}/p.db"
[gateway]
listen = "127.0.0.1:{listen}"
monitor = "127.0.0.1:{monitor}"
request_log = "{home}/requests.jsonl"
issuer = "{issuer}"
audience = "{audience}"
jwks = "{issuer}/.well-known/oauth-authorization-server"
jwks_refresh = "1s"
jwks_keep = "5min"
"""


def eventually(client: httpx.Client, token: str, status: int) -> httpx.Response:
    """Ask with a token until the answer is this; the bound is that of a loaded machine."""
    end = time.monotonic() + 30
    while True:
        answer = client.get("/products", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code == status:
            return answer
        assert time.monotonic() < end, answer.text
        time.sleep(0.2)  # keys age by the clock: there is no event


@contextmanager
def gateway_process(home: Path, issuer: str) -> Iterator[httpx.Client]:
    """`portcullis gateway`, believing this issuer."""
    listen, monitor = free_ports(2)
    engine = engine_for(f"sqlite:///{home}/p.db")
    migrate(engine)
    engine.dispose()
    config = home / "p.toml"
    config.write_text(
        CONFIG.format(home=home, listen=listen, monitor=monitor, issuer=issuer, audience=AUDIENCE)
    )
    command = [sys.executable, "-m", "portcullis.cli.main", "gateway", "--config", str(config)]
    with (home / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{listen}", transport=httpx.HTTPTransport(retries=8)
        ) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_keys_roll_over_and_a_withdrawn_one_ends(tmp_path: Path) -> None:
    """ES256, then EdDSA beside it, then RS256 and the first withdrawn; the server may go away."""
    first = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
    second = OKPKey.generate_key("Ed25519", {"use": "sig", "alg": "EdDSA"}, auto_kid=True)
    third = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
    [port] = free_ports(1)
    with gateway_process(tmp_path, f"http://127.0.0.1:{port}") as client:
        with authorization_server(tmp_path, port, [first]) as issuer:
            by_first = token_of(issuer, "sms-north", scope="read device")["access_token"]
            assert eventually(client, by_first, 200).json() == {"products": []}
            order = {"transaction_id": "t", "device_id": "1"}
            asked_by_desk = token_of(issuer, "help-desk", scope="read")["access_token"]
            bearer = {"Authorization": f"Bearer {asked_by_desk}"}
            refused = client.post("/adddevice", json=order, headers=bearer)
            assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
            assert 'scope="device"' in refused.headers["www-authenticate"]
            for_another = token_of(issuer, "help-desk", scope="read", resource="urn:other")
            wrong = eventually(client, for_another["access_token"], 401)
            assert "audience" in wrong.headers["www-authenticate"]
        with authorization_server(tmp_path, port, [second, first]) as issuer:
            by_second = token_of(issuer, "sms-north", scope="read")["access_token"]
            eventually(client, by_second, 200)
            eventually(client, by_first, 200)
        with authorization_server(tmp_path, port, [third, second]) as issuer:
            by_third = token_of(issuer, "sms-north", scope="read")["access_token"]
            eventually(client, by_third, 200)
            gone = eventually(client, by_first, 401)
            assert "signature" in gone.headers["www-authenticate"]
        eventually(client, by_third, 200)
        eventually(client, by_second, 200)
    for log in ("gateway.log", "requests.jsonl"):
        assert by_third not in (tmp_path / log).read_text()
    assert '"client_id":"help-desk"' in (tmp_path / "requests.jsonl").read_text()


def test_a_storm_of_unknown_keys_does_not_become_one_of_fetches(tmp_path: Path) -> None:
    """Hundreds of tokens with keys that nobody publishes: a fetch a second, as is configured."""
    own, stranger = (
        ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True) for _ in "12"
    )
    header = {"alg": "ES256", "kid": stranger.kid, "typ": "at+jwt"}
    [port] = free_ports(1)
    with (
        gateway_process(tmp_path, f"http://127.0.0.1:{port}") as client,
        authorization_server(tmp_path, port, [own]) as issuer,
    ):
        good = token_of(issuer, "sms-north", scope="read")["access_token"]
        eventually(client, good, 200)
        claims = jwt.decode(good, own).claims

        def ask(number: int) -> int:
            token = jwt.encode(header, claims | {"jti": str(number)}, stranger)
            bearer = {"Authorization": f"Bearer {token}"}
            return client.get("/products", headers=bearer).status_code

        before, began, asked = fetches(tmp_path), time.monotonic(), 0
        with ThreadPoolExecutor(16) as pool:
            while (fetched := fetches(tmp_path) - before) < 3:
                assert set(pool.map(ask, range(asked, asked + 100))) == {401}
                asked += 100
        assert fetched <= time.monotonic() - began + 1
        eventually(client, good, 200)


def test_a_token_is_asked_for_and_taken_as_the_page_says(tmp_path: Path) -> None:
    """With curl, of the authorization server, for the gateway."""
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
    [block] = blocks("docs/oauth.md", "Connect your authorization server")
    [port] = free_ports(1)
    with (
        gateway_process(tmp_path, f"http://127.0.0.1:{port}") as client,
        authorization_server(tmp_path, port, [key]) as issuer,
    ):
        eventually(client, token_of(issuer, "sms-north", scope="read")["access_token"], 200)
        block = block.replace("https://login.example", issuer)
        block = block.replace("http://127.0.0.1:8080", str(client.base_url).rstrip("/"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env=os.environ | {"ID": "sms-north", "SECRET": "sms-north-secret"},
            check=True,
            capture_output=True,
            text=True,
        )
    assert done.stdout.startswith("HTTP/1.1 200 ")
    assert done.stdout.endswith('{"products":[]}')


def fetches(home: Path) -> int:
    """How often the authorization server has been asked for its keys."""
    return (home / "as.log").read_text().count("keys fetched\n")
