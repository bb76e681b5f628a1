"""Access tokens: which are believed, and the endpoint that issues them."""

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from starlette.applications import Starlette

from portcullis.gateway.clients import add_client, list_clients
from portcullis.gateway.config import GatewayConfig
from portcullis.gateway.token_endpoint import TokenEndpoint
from portcullis.runtime.jwks import KeyCache
from portcullis.runtime.oauth import ClientRegister, Grant, InvalidTokenError, TokenVerifier

NOW = 1_800_000_000
ISSUER = "https://as.example"
KEY = ECKey.generate_key("P-256", {"use": "sig"}, auto_kid=True)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "portcullis",
    "client_id": "sms-1",
    "sub": "sms-1",
    "exp": NOW + 600,
    "scope": "device read",
}


def signed(header: Mapping[str, Any] | None = None, key: Any = KEY, **claims: Any) -> str:  # noqa: ANN401 (keys of many kinds)
    """A token that is right but for what is said here; a claim of None is left out."""
    full = {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid, **(header or {})}
    said = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    registry = JWSRegistry(algorithms=[full["alg"]], strict_check_header=False)
    return jwt.encode(full, said, key, registry=registry)


def verifier(*keys: Any, now: float = NOW) -> TokenVerifier:  # noqa: ANN401 (keys of many kinds)
    """A verifier that believes these keys, or KEY."""
    public = {"keys": [key.as_dict(private=False) for key in keys or (KEY,)]}
    return TokenVerifier(ISSUER, "portcullis", KeyCache(lambda: public), lambda: now)


def verify(token: str, by: TokenVerifier | None = None) -> Grant:
    """What the verifier says."""
    return asyncio.run((by or verifier()).verify(token))


def test_a_right_token_grants_its_scopes_to_its_client() -> None:
    """client_id and scope are read from the claims."""
    grant = verify(signed())
    assert (grant.client_id, grant.scopes) == ("sms-1", frozenset({"device", "read"}))


def test_an_audience_may_be_one_of_many() -> None:
    """RFC 7519 4.1.3: a list of audiences."""
    assert verify(signed(aud=["x", "portcullis"])).client_id == "sms-1"


def test_typ_may_be_spelt_in_full() -> None:
    """RFC 9068 4: application/at+jwt is the same."""
    assert verify(signed({"typ": "application/at+JWT"})).client_id == "sms-1"


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("EdDSA", OKPKey.generate_key("Ed25519", auto_kid=True)),
        ("RS256", RSAKey.generate_key(2048, auto_kid=True)),
    ],
)
def test_other_signatures_of_the_list_are_believed(algorithm: str, key: Any) -> None:  # noqa: ANN401 (keys of two kinds)
    """EdDSA and RS256 beside ES256."""
    token = signed({"alg": algorithm, "kid": key.kid}, key)
    assert verify(token, verifier(KEY, key)).client_id == "sms-1"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": 5}, "audience"),
        ({"aud": {"portcullis": 1}}, "audience"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": NOW - 31}, "expired"),
        ({"exp": None}, "time"),
        ({"exp": "soon"}, "time"),
        ({"exp": float("nan")}, "time"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"client_id": None}, "names no client"),
        ({"client_id": "x" * 65}, "names no client"),
        ({"scope": ["device"]}, "scope"),
    ],
)
def test_a_wrong_claim_is_refused(claims: dict[str, Any], why: str) -> None:
    """Each claim alone is enough."""
    with pytest.raises(InvalidTokenError, match=why):
        verify(signed(**claims))


@pytest.mark.parametrize("claims", [{"exp": NOW - 29}, {"nbf": NOW + 29}])
def test_clocks_may_differ_by_half_a_minute(claims: dict[str, Any]) -> None:
    """30 s of skew either way."""
    assert verify(signed(**claims)).client_id == "sms-1"


@pytest.mark.parametrize("type_", ["JWT", "", "id+jwt"])
def test_a_token_of_another_type_is_refused(type_: str) -> None:
    """An ID token of the same server is no access token."""
    with pytest.raises(InvalidTokenError, match=r"at\+jwt"):
        verify(signed({"typ": type_}))


def test_no_signature_and_a_shared_secret_are_refused() -> None:
    """Alg none, and HS256 keyed with the public key (RFC 8725 2.1)."""

    def base64url(value: bytes) -> str:
        return urlsafe_b64encode(value).rstrip(b"=").decode()

    def part(value: object) -> str:
        return base64url(json.dumps(value).encode())

    unsigned = f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{part(CLAIMS)}."
    content = f"{part({'alg': 'HS256', 'typ': 'at+jwt', 'kid': KEY.kid})}.{part(CLAIMS)}"
    mac = hmac.digest(KEY.as_pem(private=False), content.encode(), "sha256")
    for token in (unsigned, f"{content}.{base64url(mac)}"):
        with pytest.raises(InvalidTokenError):
            verify(token)


def test_a_signature_of_another_key_is_refused() -> None:
    """Under the kid of ours."""
    with pytest.raises(InvalidTokenError, match="signature"):
        verify(signed(key=ECKey.generate_key("P-256")))


@pytest.mark.parametrize("token", ["", "a.b.c", "x", "ä.ö.ü", "a" * 9000, "e30.e30.e30"])
def test_noise_is_refused(token: str) -> None:
    """What is no JWT is an invalid token, never an error of ours."""
    with pytest.raises(InvalidTokenError):
        verify(token)


def test_a_remembered_token_still_expires() -> None:
    """The cache ends with the token."""
    clock = [float(NOW)]
    public = {"keys": [KEY.as_dict(private=False)]}
    by = TokenVerifier(ISSUER, "portcullis", KeyCache(lambda: public), lambda: clock[0])
    token = signed()

    async def scenario() -> None:
        assert await by.verify(token) is await by.verify(token)
        clock[0] += 631
        with pytest.raises(InvalidTokenError):
            await by.verify(token)

    asyncio.run(scenario())


def test_the_token_endpoint_issues_what_the_gateway_believes(tmp_path: Path) -> None:
    """Basic and form authentication, scopes narrowed to what the client may; others refused."""
    config = GatewayConfig(oauth_dir=str(tmp_path / "oauth"))
    client = add_client(config, "crm", ("device", "read"))
    issuer = "http://127.0.0.1:8080"
    endpoint = TokenEndpoint(tmp_path / "oauth", issuer, "portcullis", 60)
    by = TokenVerifier(issuer, "portcullis", KeyCache(endpoint.keys))
    pair = (client.client_id, client.client_secret)
    grant = {"grant_type": "client_credentials"}

    async def scenario() -> None:
        transport = httpx.ASGITransport(app=Starlette(routes=endpoint.routes()))
        async with httpx.AsyncClient(transport=transport, base_url=issuer) as http:
            basic = await http.post("/oauth/token", data=grant, auth=pair)
            assert basic.status_code == 200, basic.text
            assert basic.headers["cache-control"] == "no-store"
            assert (await by.verify(basic.json()["access_token"])).scopes == {"device", "read"}
            form = {"client_id": pair[0], "client_secret": pair[1], "scope": "read message"}
            posted = await http.post("/oauth/token", data=grant | form)
            assert posted.json()["scope"] == "read"
            wrong = await http.post("/oauth/token", data=grant, auth=(pair[0], "wrong"))
            assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
            unknown = await http.post("/oauth/token", data=grant, auth=("nobody", "x"))
            assert unknown.json()["error"] == "invalid_client"
            other = await http.post("/oauth/token", data={"grant_type": "password"}, auth=pair)
            assert other.json()["error"] == "unsupported_grant_type"
            evil = await http.post("/oauth/token", data=grant | {"scope": "root"}, auth=pair)
            assert evil.json()["error"] == "invalid_scope"
            for noise in (b"\xff", b"x" * 9000, b"", b"a&b"):
                answer = await http.post("/oauth/token", content=noise, auth=pair)
                assert answer.status_code == 400, noise
            metadata = (await http.get("/.well-known/oauth-authorization-server")).json()
            keys = (await http.get(metadata["jwks_uri"])).json()
            assert keys == endpoint.keys()
            assert "d" not in keys["keys"][0]

    asyncio.run(scenario())


def test_the_register_keeps_no_secret(tmp_path: Path) -> None:
    """A hash only, for the owner's eyes; a repr that shows nothing."""
    config = GatewayConfig(oauth_dir=str(tmp_path))
    client = add_client(config, "crm")
    file = tmp_path / "clients.json"
    assert client.client_secret not in file.read_text()
    assert client.client_secret not in repr(client)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [row["name"] for row in list_clients(config)] == ["crm"]
    assert ClientRegister(tmp_path).remove(client.client_id)
    assert list_clients(config) == []
    with pytest.raises(ValueError, match="unknown scope"):
        add_client(config, "crm", ("everything",))


def test_a_header_beyond_the_known_is_ignored_unless_it_is_critical() -> None:
    """RFC 7515 4 and 4.1.11; a token cannot bring its own key (RFC 8725 3.10)."""
    assert verify(signed({"nonce": "5", "x-trace": "1"})).client_id == "sms-1"
    evil = ECKey.generate_key("P-256")
    own = {"jku": "https://evil.example/jwks", "jwk": evil.as_dict(private=False)}
    with pytest.raises(InvalidTokenError, match="signature"):
        verify(signed(own, evil))
    parts = [{"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid, "crit": ["b64"], "b64": False}]
    parts.append(CLAIMS)
    content = ".".join(
        urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts
    )
    signature = JWSRegistry.algorithms["ES256"].sign(content.encode(), KEY)
    encoded = urlsafe_b64encode(signature).rstrip(b"=").decode()
    with pytest.raises(InvalidTokenError):
        verify(f"{content}.{encoded}")
