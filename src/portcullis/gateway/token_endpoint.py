"""The built-in authorization server: client credentials (RFC 6749 4.4), no more."""

import asyncio
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from portcullis.runtime.oauth import SCOPES, Client, ClientRegister, issue_token, signing_key

_AUTHENTICATION = ["client_secret_basic", "client_secret_post"]
_CLIENT_CREDENTIALS = "client_credentials"
_MAX_BODY_BYTES = 8192
_REALM = "portcullis"
_UNIFORM_URI = "https://gateway/oauth/token"  # TLS is the reverse proxy's, or the host's own


class _RegisteredClient(ClientMixin):  # type: ignore[misc]  # Authlib has no types
    def __init__(self, client_id: str, client: Client) -> None:
        self.client_id = client_id
        self.client = client

    def check_client_secret(self, client_secret: str) -> bool:
        return self.client.has_secret(client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return endpoint == "token" and method in _AUTHENTICATION

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == _CLIENT_CREDENTIALS


class _Grant(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = _AUTHENTICATION


class _Form(NamedTuple):
    method: str
    headers: Mapping[str, str]
    fields: dict[str, str]


class _TokenRequest(OAuth2Request):  # type: ignore[misc]  # Authlib has no types
    def __init__(self, form: _Form) -> None:
        super().__init__(form.method, _UNIFORM_URI, headers=form.headers)
        self._fields = form.fields
        self.payload = BasicOAuth2Payload(form.fields)

    @property
    def form(self) -> dict[str, str]:
        return self._fields


class _Server(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    def __init__(self, register: ClientRegister, lifetime_s: int, sign: Any) -> None:  # noqa: ANN401 (two strings to one)
        super().__init__(scopes_supported=SCOPES)
        self._register = register
        self._lifetime_s = lifetime_s
        self._sign = sign
        self.register_grant(_Grant)
        self.register_token_generator("default", self._token)

    def query_client(self, client_id: str) -> _RegisteredClient | None:
        client = self._register.all().get(client_id)
        return None if client is None else _RegisteredClient(client_id, client)

    def _token(self, client: _RegisteredClient, scope: str | None, **_: object) -> dict[str, Any]:
        allowed = set(client.client.scopes)
        scopes = sorted(allowed & set(scope.split()) if scope else allowed)
        return {
            "access_token": self._sign(client.client_id, scopes),
            "token_type": "Bearer",  # nosec B105
            "expires_in": self._lifetime_s,
            "scope": " ".join(scopes),
        }

    def create_oauth2_request(self, request: _Form) -> _TokenRequest:
        return _TokenRequest(request)

    def save_token(self, token: object, request: object) -> None:
        """Keep nothing: the token says it all."""

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Tell nobody."""

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Response:  # noqa: ANN401 (JSON)
        return JSONResponse(body, status, dict(headers))


class TokenEndpoint:
    """Routes and keys of the built-in authorization server."""

    def __init__(self, directory: Path, issuer: str, audience: str, lifetime_s: int) -> None:
        self._issuer = issuer
        self._key = signing_key(directory)
        self._server = _Server(
            ClientRegister(directory),
            lifetime_s,
            lambda client_id, scopes: issue_token(
                self._key,
                issuer=issuer,
                audience=audience,
                client_id=client_id,
                scopes=scopes,
                lifetime_s=lifetime_s,
            ),
        )

    def keys(self) -> Mapping[str, Any]:
        """The public JWK set."""
        return {"keys": [self._key.as_dict(private=False)]}

    def routes(self) -> list[Route]:
        """Token endpoint, keys and metadata."""
        return [
            Route("/oauth/token", self._issue, methods=["POST"]),
            Route("/oauth/jwks.json", self._serve_keys),
            Route("/.well-known/oauth-authorization-server", self._serve_metadata),
        ]

    async def _issue(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return JSONResponse({"error": "invalid_request"}, 400)
        try:
            fields = dict(parse_qsl(body.decode(), max_num_fields=20, strict_parsing=True))
        except ValueError:
            return JSONResponse({"error": "invalid_request"}, 400)
        if not _is_readable(request.headers.get("authorization", "")):
            return JSONResponse(
                {"error": "invalid_client"}, 401, {"WWW-Authenticate": f'Basic realm="{_REALM}"'}
            )
        ask = _Form(request.method, {"Authorization": "", **_titled(request)}, fields)
        # scrypt takes its time on purpose: not on the event loop.
        response: Response = await asyncio.to_thread(self._server.create_token_response, ask)
        return response

    async def _serve_keys(self, _request: Request) -> Response:
        return JSONResponse(self.keys())

    async def _serve_metadata(self, _request: Request) -> Response:
        """RFC 8414 2."""
        return JSONResponse(
            {
                "issuer": self._issuer,
                "token_endpoint": f"{self._issuer}/oauth/token",
                "jwks_uri": f"{self._issuer}/oauth/jwks.json",
                "grant_types_supported": [_CLIENT_CREDENTIALS],
                "response_types_supported": [],
                "token_endpoint_auth_methods_supported": _AUTHENTICATION,
                "scopes_supported": list(SCOPES),
            }
        )


def _is_readable(authorization: str) -> bool:
    """Whether Basic credentials, where there are any, are UTF-8 in base64 (RFC 7617 2)."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return True
    try:
        b64decode(credentials.strip(), validate=True).decode()
    except ValueError:
        return False
    return True


def _titled(request: Request) -> dict[str, str]:
    return {name.title(): value for name, value in request.headers.items()}
