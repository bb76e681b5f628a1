"""The keys of an authorization server: where they are, and how long they are believed."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.logging import get_logger

_RETRY_S = 10.0
_FETCH_S = 10.0
_MAX_BYTES = 1 << 20
_MIN_RSA_BITS = 2048  # RFC 7518 3.3

log = get_logger("portcullis.oauth")

KeySource = Callable[[], Mapping[str, Any]]
"""Fetches a JWK set (RFC 7517 5); may block. Raises KeysUnavailableError."""


class KeysUnavailableError(PortcullisError):
    """The authorization server's keys cannot be had."""


def is_private_enough(location: str) -> bool:
    """Whether keys from there cannot be swapped on the way: a file, TLS, or this host."""
    parts = urlsplit(location)
    on_this_host = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return parts.scheme not in ("http", "https") or parts.scheme == "https" or on_this_host


def key_source(location: str, issuer: str) -> KeySource:
    """Keys from a file, from a JWKS URL, or from a URL of `issuer`'s metadata (RFC 8414)."""

    def fetch() -> Mapping[str, Any]:
        try:
            if not location.startswith(("https://", "http://")):
                return _object(Path(location).read_bytes())
            document = _get(location)
            if "keys" in document:
                return document
            if document.get("issuer") != issuer:  # RFC 8414 3.3
                raise KeysUnavailableError(
                    f"{location} is the metadata of {document.get('issuer')!r}, not of {issuer!r}"
                )
            return _get(str(document.get("jwks_uri")))
        except (OSError, httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
            raise KeysUnavailableError(f"no keys from {location}: {error}") from error

    return fetch


def _get(url: str) -> dict[str, Any]:
    if not is_private_enough(url) or not url.startswith(("https://", "http://")):
        raise KeysUnavailableError(f"{url}: keys are fetched over https only")
    end = time.monotonic() + _FETCH_S
    body = bytearray()
    with httpx.stream("GET", url, timeout=5.0) as response:
        response.raise_for_status()  # a redirect is none of RFC 8414's answers either
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_BYTES or time.monotonic() > end:
                raise KeysUnavailableError(f"{url}: more than {_MAX_BYTES} bytes, or too slow")
    return _object(bytes(body))


def _object(data: bytes) -> dict[str, Any]:
    return msgspec.json.decode(data, type=dict[str, Any])


class KeyCache:
    """Keys by RFC 7638 thumbprint, fetched anew before they are old, one fetch at a time.

    refresh_s: age from which keys are fetched anew, at first beside the requests; from twice
        that age on they wait for it.
    keep_s: age up to which keys are believed while the server does not answer.
    clock: seconds that never go back.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        refresh_s: float = 300.0,
        keep_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._refresh_s = refresh_s
        self._keep_s = keep_s
        self._clock = clock
        self._keys: Mapping[str, Key] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def keys(self) -> Mapping[str, Key]:
        """The keys to believe now; raises KeysUnavailableError."""
        age = self._clock() - self._fetched_at
        if age < self._refresh_s:
            return self._keys
        fetch = self._begin_fetch()
        if fetch is not None and age >= 2 * self._refresh_s:
            await asyncio.shield(fetch)
            age = self._clock() - self._fetched_at
        if age >= self._keep_s:
            raise KeysUnavailableError("the authorization server's keys cannot be had")
        return self._keys

    def check(self) -> str | None:
        """Readiness: no token can be checked without keys that are believed."""
        believed = self._keys and self._clock() - self._fetched_at < self._keep_s
        return None if believed else "its keys cannot be had"

    async def newer(self) -> Mapping[str, Key]:
        """The keys after one more look: a token names one that was not among them."""
        if (fetch := self._begin_fetch()) is not None:
            await asyncio.shield(fetch)
        return await self.keys()

    def _begin_fetch(self) -> "asyncio.Task[None] | None":
        """The fetch under way, or a new one; None where the last try is young."""
        if self._fetch is not None and not self._fetch.done():
            return self._fetch
        now = self._clock()
        if now - self._tried_at < min(_RETRY_S, self._refresh_s):
            return None
        self._tried_at = now
        self._fetch = asyncio.create_task(self._fetch_keys(now))
        return self._fetch

    async def _fetch_keys(self, now: float) -> None:
        try:
            found = (await asyncio.to_thread(self._source)).get("keys")
        except KeysUnavailableError as error:
            log.warning("keys not refreshed", error=str(error))
            return
        if not isinstance(found, list):
            log.warning("keys not refreshed", error="what was fetched is no JWK set")
            return
        usable = [key for each in found if (key := _usable_key(each)) is not None]
        self._keys = {key.thumbprint(): key for key in usable}
        self._fetched_at = now


def _usable_key(found: object) -> Key | None:
    """A public key that tokens may be signed with; None for others, which RFC 7517 5 ignores."""
    try:
        [key] = KeySet.import_key_set({"keys": [found]}).keys  # type: ignore[list-item]  # checked by joserfc
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if key.get("use", "sig") != "sig" or "verify" not in (key.get("key_ops") or ["verify"]):
        return None
    match key:
        case ECKey():
            is_of_list = key.curve_name == "P-256"
        case OKPKey():
            is_of_list = key.curve_name == "Ed25519"
        case RSAKey():
            is_of_list = key.raw_value.key_size >= _MIN_RSA_BITS
        case _:
            is_of_list = False
    return key if is_of_list else None
