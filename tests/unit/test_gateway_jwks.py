"""The keys of the authorization server: which, from where, for how long."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from test_gateway_oauth import ISSUER, KEY, NOW, signed

from portcullis.gateway.config import GatewayConfig
from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.runtime.jwks import KeyCache, KeysUnavailableError, key_source
from portcullis.runtime.oauth import InvalidTokenError, TokenVerifier

NEW = ECKey.generate_key("P-256", auto_kid=True)


class Server:
    """An authorization server of a test's own: what it publishes, and how often it was asked."""

    def __init__(self, *keys: Any) -> None:  # noqa: ANN401 (keys of many kinds)
        self.published = list(keys)
        self.asked = 0
        self.is_away = False
        self.clock = 1000.0
        self.held: Event | None = None
        self.cache = KeyCache(self.fetch, refresh_s=300, keep_s=3600, clock=lambda: self.clock)
        self.verifier = TokenVerifier(ISSUER, "portcullis", self.cache, lambda: NOW)

    def fetch(self) -> Mapping[str, Any]:
        """What the gateway asks for."""
        self.asked += 1
        if self.held is not None:
            self.held.wait(20)
        if self.is_away:
            raise KeysUnavailableError("away")
        return {"keys": [key.as_dict(private=False) for key in self.published]}

    async def believes(self, token: str) -> bool:
        """Whether a token is taken; when it is not, it is the token's fault."""
        try:
            await self.verifier.verify(token)
        except InvalidTokenError:
            return False
        return True


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario."""
    asyncio.run(scenario())


def test_a_new_key_is_fetched_when_it_is_seen_and_no_oftener_than_allowed() -> None:
    """An unknown kid asks the server again, at most every ten seconds, however many ask."""
    server = Server(KEY)
    new = signed({"kid": NEW.kid}, NEW)

    async def scenario() -> None:
        assert await server.believes(signed())
        assert not any(await asyncio.gather(*[server.believes(new) for _ in range(50)]))
        assert server.asked == 1
        server.published.append(NEW)
        server.clock += 11
        assert all(await asyncio.gather(*[server.believes(new) for _ in range(50)]))
        assert server.asked == 2

    play(scenario)


def test_a_withdrawn_key_stops_working_within_twice_the_refresh_also_for_remembered_tokens() -> (
    None
):
    """Requests go on while the keys are fetched; then what the old key signed is refused."""
    server = Server(KEY)
    token = signed()

    async def scenario() -> None:
        assert await server.believes(token)
        server.published = [NEW]
        server.clock += 301
        assert await server.believes(token)  # fetching has begun beside this request
        await asyncio.wait_for(server.cache.newer(), 20)
        assert not await server.believes(token)
        server.published = [KEY]
        server.clock += 1000  # nobody came meanwhile: the first to come waits for the keys
        assert await server.believes(token)
        server.published = [NEW]
        server.clock += 600
        assert not await server.believes(token)

    play(scenario)


def test_a_server_that_hangs_holds_up_nobody_whose_key_is_known() -> None:
    """Keys that are due are fetched beside the requests."""
    server = Server(KEY)

    async def scenario() -> None:
        assert await server.believes(signed())
        server.held = Event()
        server.clock += 301
        for _ in range(3):
            assert await server.believes(signed())
        assert server.asked <= 2
        server.held.set()
        await asyncio.wait_for(server.cache.newer(), 20)
        assert server.asked == 2

    play(scenario)


def test_a_server_that_is_away_is_asked_every_ten_seconds_and_trusted_for_an_hour() -> None:
    """Not the token's fault: nobody is told that it is invalid."""
    server = Server(KEY)

    async def scenario() -> None:
        assert await server.believes(signed())
        server.is_away = True
        for _ in range(350):
            server.clock += 10
            assert await server.believes(signed())
        assert 10 < server.asked < 330
        server.clock += 100
        with pytest.raises(KeysUnavailableError):
            await server.believes(signed())
        server.is_away = False
        server.clock += 10
        assert await server.believes(signed())

    play(scenario)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize(
    ("algorithm", "make", "published"),
    [
        ("ES256", lambda: ECKey.generate_key("P-256"), {"use": "enc"}),
        ("ES256", lambda: ECKey.generate_key("P-256"), {"alg": "ES384"}),
        ("ES256", lambda: ECKey.generate_key("P-256"), {"key_ops": ["sign"]}),
        ("EdDSA", lambda: OKPKey.generate_key("Ed448"), {}),
        ("RS256", lambda: RSAKey.generate_key(1024), {}),
    ],
)
def test_keys_that_are_not_for_this_are_not_used(
    algorithm: str, make: Callable[[], Any], published: dict[str, Any]
) -> None:
    """For encryption, for another algorithm, another curve, too short; the others go on."""
    key = make()
    unfit = key.as_dict(private=False) | {"kid": "unfit"} | published
    document = {"keys": [unfit, KEY.as_dict(private=False)]}
    by = TokenVerifier(ISSUER, "portcullis", KeyCache(lambda: document), lambda: NOW)

    async def scenario() -> None:
        with pytest.raises(InvalidTokenError, match="signature"):
            await by.verify(signed({"alg": algorithm, "kid": "unfit"}, key))
        await by.verify(signed())

    play(scenario)


@pytest.mark.parametrize("noise", [None, 5, {}, {"kty": "EC"}, {"kty": "XX"}, {"kty": ["EC"]}])
def test_what_is_no_key_spoils_no_other(noise: object) -> None:
    """RFC 7517 5: unknown members of the set are ignored; a shared secret is none of ours."""
    secret = OctKey.generate_key(256).as_dict(private=True)
    cache = KeyCache(lambda: {"keys": [noise, secret, KEY.as_dict(private=False)]})
    assert [key.kid for key in asyncio.run(cache.keys()).values()] == [KEY.kid]


@pytest.mark.parametrize("document", [{}, {"keys": "none"}, {"keys": None}])
def test_what_is_no_key_set_is_a_server_that_is_away(document: dict[str, Any]) -> None:
    """Rather than a set without keys, which would refuse every token."""
    with pytest.raises(KeysUnavailableError):
        asyncio.run(KeyCache(lambda: document).keys())


class _Answers(BaseHTTPRequestHandler):
    answers: Mapping[str, Any]

    def do_GET(self) -> None:
        """Answer with what the test has put there: a document, or where to go instead."""
        answer = self.answers[self.path]
        self.send_response(302 if isinstance(answer, str) else 200)
        if isinstance(answer, str):
            self.send_header("Location", answer)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


JWKS = {"keys": [KEY.as_dict(private=False)]}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/jwks", None),
        ("/metadata", None),
        ("/another", "of 'https://as.example'"),
        ("/slash", "of 'https://as.example'"),
        ("/in-clear", "https only"),
        ("/local-file", "https only"),
        ("/moved", "302"),
        ("/list", "Expected"),
        ("/huge", "bytes"),
    ],
)
def test_metadata_is_of_the_issuer_itself_and_leads_to_its_keys(
    path: str, expected: str | None
) -> None:
    """RFC 8414 3.3: issuer identical, keys over TLS; nothing else is followed."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    base = f"http://127.0.0.1:{listener.server_port}"
    _Answers.answers = {
        "/jwks": JWKS,
        "/metadata": {"issuer": ISSUER, "jwks_uri": f"{base}/jwks"},
        "/another": {"issuer": "https://evil.example", "jwks_uri": f"{base}/jwks"},
        "/slash": {"issuer": f"{ISSUER}/", "jwks_uri": f"{base}/jwks"},
        "/in-clear": {"issuer": ISSUER, "jwks_uri": "http://as.example/jwks"},
        "/local-file": {"issuer": ISSUER, "jwks_uri": "/etc/passwd"},
        "/moved": f"{base}/jwks",
        "/list": [1],
        "/huge": {"keys": ["x" * (1 << 20)]},
    }
    thread = Thread(target=listener.serve_forever, args=(0.02,))
    thread.start()
    try:
        fetch = key_source(base + path, ISSUER)
        if expected is None:
            assert fetch() == JWKS
        else:
            with pytest.raises(KeysUnavailableError, match=expected):
                fetch()
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def test_keys_may_lie_in_a_file(tmp_path: Path) -> None:
    """For an authorization server that the gateway cannot reach."""
    (tmp_path / "jwks.json").write_text(json.dumps(JWKS))
    assert key_source(str(tmp_path / "jwks.json"), ISSUER)() == JWKS
    with pytest.raises(KeysUnavailableError):
        key_source(str(tmp_path / "none"), ISSUER)()


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('jwks = "https://as.example/jwks"', "gateway.issuer"),
        ('issuer = "x"\njwks = "http://as.example/jwks"', "gateway.jwks"),
        ('issuer = "x"\njwks = "http://127.0.0.1.evil.example/jwks"', "gateway.jwks"),
        ('jwks_refresh = "1h"', "gateway.jwks_keep"),
    ],
)
def test_a_configuration_that_would_not_hold_is_refused(
    lines: str, key: str, tmp_path: Path
) -> None:
    """Keys in clear over a network; keys kept shorter than they are refreshed."""
    file = tmp_path / "p.toml"
    file.write_text(f"[gateway]\n{lines}\n")
    with pytest.raises(ConfigError, match=key):
        GatewayConfig.of(ConfigSource.load(file, {}))
