"""Bad requests by the seed: bodies, headers, bytes, mutations of what an SMS would send."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

DEVICES = [str(number) for number in range(1, 9)]
NESTED = 4_000
_JSON = "application/json"

ORDERS: list[tuple[str, dict[str, Any]]] = [
    ("adddevice", {"device_id": "1"}),
    ("removedevice", {"device_id": "2"}),
    (
        "addentitlement",
        {
            "device_id": "3",
            "product_id": 101,
            "starts_at": "2026-01-31T20:15:00+01:00",
            "ends_at": "2036-01-31T20:15:00Z",
        },
    ),
    ("removeentitlement", {"device_id": "4", "product_id": 101}),
    (
        "generateosm",
        {
            "device_id": "5",
            "text": "Grüß Gott",
            "duration_s": 60,
            "position": 1,
            "priority": 2,
            "expires_at": "2036-01-31T20:15:00Z",
        },
    ),
    ("removeosm", {"message_id": 1}),
]

# Not JSON values, as text: what `json.dumps` would not write.
ODD_TEXT = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e99999",
    "-0",
    "1" * 5000,
    "-" + "9" * 400,
    "0x10",
    "01",
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    "[" * NESTED + "]" * NESTED,
    '{"a":' * NESTED + "1" + "}" * NESTED,
    "[" * NESTED,
    "'1'",
    "undefined",
    "",
]
ODD_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**40,
    2**63,
    2**64,
    -(2**63),
    1e308,
    "",
    " ",
    "0",
    "01",
    "-1",
    "1e3",
    "1099511627776",
    "٣",
    "\x00",
    "\x7f",
    "\ufeff",
    "\U0010ffff",
    "a" * 65,
    "a" * 1001,
    "'; DROP TABLE requests; --",
    "%s%n{0}",
    "9999-12-31T23:59:59+23:59",
    "0001-01-01T00:00:00-23:59",
    "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:00",
    "2026-01-01",
    [],
    [1] * 100,
    {},
    {"a": {"b": []}},
]
ODD_BYTES = [b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf"]


@dataclass(frozen=True)
class Case:
    """What is sent over one connection, in pieces.

    Attributes:
        requests: how many it is meant to be.
        is_whole: HTTP has nothing against it: each is owed an answer.
    """

    pieces: tuple[bytes, ...]
    requests: int = 1
    is_whole: bool = True


def cases(seed: int, token: str) -> Iterator[Case]:
    """Bad requests without end; the same seed gives the same."""
    rng = Random(seed)
    makers: list[Callable[[Random, str], Case]] = [
        _bad_body,
        _bad_body,
        _bad_body,
        _bad_batch,
        _bad_path,
        _bad_headers,
        _bad_token,
        _bad_form,
        _bad_framing,
        _bad_bytes,
        _pipelined,
    ]
    while True:
        yield rng.choice(makers)(rng, token)


def _request(
    method: str,
    path: str | bytes,
    token: str | None,
    body: bytes = b"",
    content_type: str = _JSON,
    *,
    close: bool = True,
    more: bytes = b"",
) -> bytes:
    target = path if isinstance(path, bytes) else path.encode()
    head = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: gateway"]
    if token is not None:
        head.append(b"Authorization: Bearer " + token.encode())
    if body or method != "GET":
        head.append(b"Content-Type: " + content_type.encode())
        head.append(b"Content-Length: %d" % len(body))
    if close:
        head.append(b"Connection: close")
    return b"\r\n".join(head) + b"\r\n" + more + b"\r\n" + body


def order_case(token: str, kind: str, body: bytes) -> Case:
    """A body sent as an order."""
    return Case((_request("POST", f"/{kind}", token, body),))


def bad_fields(rng: Random) -> tuple[str, bytes]:
    """A kind of order and its body with something wrong in it."""
    kind, fields = rng.choice(ORDERS)
    fields = {"transaction_id": f"t{rng.getrandbits(64):x}", **fields}
    name = rng.choice(list(fields))
    match rng.randrange(8):
        case 0:
            del fields[name]
        case 1:
            fields[rng.choice(["op", "x", "", "transaction_id ", "\x00"])] = 1
        case 2 | 3:
            fields[name] = rng.choice(ODD_VALUES)
        case 4:  # a key twice
            text = json.dumps(fields)
            again = json.dumps(rng.choice(ODD_VALUES))
            return kind, f"{text[:-1]},{json.dumps(name)}:{again}}}".encode()
        case 5:  # what is no JSON where a value belongs
            text = json.dumps({**fields, name: "@@"})
            return kind, text.replace('"@@"', rng.choice(ODD_TEXT)).encode()
        case 6:
            return kind, mutate(rng, json.dumps(fields, ensure_ascii=False).encode())
        case _:
            whole = rng.choice([fields, *ODD_VALUES])
            encoding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"])
            return kind, json.dumps(whole, ensure_ascii=False).encode(encoding, "replace")
    return kind, json.dumps(fields, ensure_ascii=rng.random() < 0.5).encode("utf-8", "replace")


def mutate(rng: Random, data: bytes) -> bytes:
    """Flip, cut, repeat or insert in a few places."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0:
                out[at:at] = rng.choice(ODD_BYTES)
            case 1:
                del out[at : at + rng.randint(1, 8)]
            case 2:
                out[at:at] = out[at : at + rng.randint(1, 40)]
            case 3 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case _:
                out[at:at] = rng.randbytes(rng.randint(1, 4))
    return bytes(out)


def _bad_body(rng: Random, token: str) -> Case:
    kind, body = bad_fields(rng)
    types = [_JSON] * 4 + ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded"]
    return Case((_request("POST", f"/{kind}", token, body, rng.choice(types)),))


def _bad_batch(rng: Random, token: str) -> Case:
    lines = []
    for _ in range(rng.randint(1, 20)):
        kind, body = bad_fields(rng)
        op = json.dumps(rng.choice([kind, kind, "", "batch", 1, None]))
        lines.append(body.replace(b"{", b'{"op":' + op.encode() + b",", 1))
    body = rng.choice([b"\n", b"\n", b"\r\n", b"\n\n", b"\x00"]).join(lines)
    if rng.random() < 0.02:
        body = b"{}\n" * 10_001
    return Case((_request("POST", "/batch", token, body, "application/x-ndjson"),))


def _bad_path(rng: Random, token: str) -> Case:
    odd = rng.choice(
        [
            "%00",
            "%ff",
            "%C3%BC",
            "..%2f",
            "a" * 300,
            "%",
            "%zz",
            "1e3",
            "-1",
            "0",
            "{x}",
            "*",
            "%0a",
        ]
        + ["1099511627776", "9" * 400, "%E2%80%AE", "%F0%9F%93%BA", "'%20OR%201=1"]
    )
    method, path = rng.choice(
        [
            ("GET", f"/devices/{odd}"),
            ("GET", f"/requests/{odd}"),
            ("GET", f"/requests?transaction_id={odd}"),
            ("GET", f"/requests?{odd}"),
            ("PUT", f"/products/{odd}"),
            ("GET", f"/{odd}"),
            ("POST", f"/{odd}/adddevice"),
            ("DELETE", "/products/101"),
            ("PATCH", "/devices/1"),
            ("GET", "/adddevice"),
            ("TRACE", "/products"),
            ("OPTIONS", "*"),
            ("CONNECT", "gateway:443"),
            ("GET", "http://other.example/products/x"),
        ]
    )
    body = b"" if method == "GET" else json.dumps({"name": rng.choice(ODD_VALUES)}).encode()
    return Case((_request(method, path, token, body),))


def _bad_headers(rng: Random, token: str) -> Case:
    kind, body = bad_fields(rng)
    more = rng.choice(
        [
            b"X: " + b"a" * rng.choice([100, 9_000, 70_000, 300_000]) + b"\r\n",
            b"".join(b"X%d: y\r\n" % n for n in range(rng.choice([50, 2_000, 20_000]))),
            b"Content-Length: 5\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 18446744073709551616\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: \x0bchunked\r\n",
            b"Content-Encoding: gzip\r\n",
            b"Expect: 100-continue\r\n",
            b"Expect: 200-maybe\r\n",
            b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\n",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n",
            b" folded\r\n",
            b"No colon\r\n",
            b": no name\r\n",
            b"X\x00Y: z\r\n",
            b"X: a\x00b\r\n",
            b"X: \xff\xfe\r\n",
            b"Host: other\r\nHost: third\r\n",
            b"Range: bytes=0-1,5-\r\n",
            b"Authorization: Basic " + rng.randbytes(9).hex().encode() + b"\r\n",
            b"Content-Type: \xff/\xff; charset=utf-99\r\n",
        ]
    )
    return Case((_request("POST", f"/{kind}", token, body, more=more),), is_whole=False)


def _bad_token(rng: Random, token: str) -> Case:
    head, claims, signature = token.split(".")
    bad = rng.choice(
        [
            lambda: f"{head}.{claims}.",
            lambda: f"{head}.{claims}",
            lambda: f"..{signature}",
            lambda: f"{head}.{mutate_text(rng, claims)}.{signature}",
            lambda: f"{mutate_text(rng, head)}.{claims}.{signature}",
            lambda: f"eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{claims}.",
            lambda: token + "=" * rng.randrange(5),
            lambda: "a" * rng.choice([1, 100, 9_000]),
            lambda: rng.randbytes(20).decode("latin-1").replace("\r", "").replace("\n", ""),
            lambda: "",
        ]
    )()
    raw = _request("GET", "/products", "@@").replace(b"@@", bad.encode("latin-1", "replace"))
    if rng.random() < 0.2:
        raw = raw.replace(b"Bearer", rng.choice([b"Basic", b"bearer\t", b"B\xe9arer", b""]))
    return Case((raw,))


def mutate_text(rng: Random, text: str) -> str:
    """Change one character of a token's part to another of its alphabet."""
    at = rng.randrange(len(text))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:at] + rng.choice(alphabet) + text[at + 1 :]


def _bad_form(rng: Random, token: str) -> Case:
    del token
    body = rng.choice(
        [
            b"",
            b"grant_type=client_credentials",
            b"grant_type=password&username=a&password=b",
            b"grant_type=client_credentials&grant_type=client_credentials",
            b"grant_type=client_credentials&client_id=%00&client_secret=%ff",
            b"grant_type=client_credentials&client_id=a&client_secret=b&scope=" + b"x" * 3000,
            b"&".join(b"a%d=b" % n for n in range(50)),
            b"x" * 9000,
            mutate(rng, b"grant_type=client_credentials&client_id=a&client_secret=b"),
            b'{"grant_type": "client_credentials"}',
        ]
    )
    more = rng.choice([b"", b"Authorization: Basic ", b"Authorization: Basic AAAA\r\n"])
    if more.endswith(b" "):
        more += rng.randbytes(6).hex().encode() + rng.choice([b"", b"=", b"\xff"]) + b"\r\n"
    form = "application/x-www-form-urlencoded"
    return Case((_request("POST", "/oauth/token", None, body, form, more=more),))


def _bad_framing(rng: Random, token: str) -> Case:
    kind, body = bad_fields(rng)
    good = _request("POST", f"/{kind}", token, body)
    head = good[: len(good) - len(body)]
    chunked = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    raw = rng.choice(
        [
            good[: rng.randrange(len(good))],  # cut anywhere
            head + body[: len(body) // 2],
            head + body + b"trailing rubbish",
            chunked + b"zz\r\n" + body,
            chunked + b"-5\r\n" + body,
            chunked + b"fffffffffffffffff\r\n" + body,
            chunked + b"7fffffffffffffff\r\n" + body,
            chunked + b"5\r\n" + body,  # the size is wrong
            chunked + b"%x" % len(body) + b";" + b"x" * 70_000 + b"\r\n" + body + b"\r\n0\r\n\r\n",
            chunked + b"%x\r\n%s\r\n0\r\n" % (len(body), body) + b"T: x\r\n" * 3_000 + b"\r\n",
            chunked + whole.replace(b"\r\n", b"\n"),
            chunked + whole[: rng.randrange(len(whole))],
            head.replace(b"HTTP/1.1", rng.choice([b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9", b""]))
            + body,
            head.replace(b"\r\n", b"\n") + body,
            head.replace(b"Content-Length: ", b"Content-Length: 9") + body,
        ]
    )
    cut = rng.randrange(len(raw) + 1)
    return Case((raw[:cut], raw[cut:]), is_whole=False)


def _bad_bytes(rng: Random, token: str) -> Case:
    kind, body = bad_fields(rng)
    raw = rng.choice(
        [
            rng.randbytes(rng.randint(1, 600)),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),  # TLS
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(30),
            b"GET / \r\n\r\n",
            b"\r\n" * 5_000,
            b"GET /" + b"a" * rng.choice([9_000, 70_000, 300_000]) + b" HTTP/1.1\r\n\r\n",
            mutate(rng, _request("POST", f"/{kind}", token, body)),
            b"\x03\x00\x11\x00\x13" + rng.randbytes(19),  # SimulCrypt at the wrong door
        ]
    )
    return Case((raw,), is_whole=False)


def _pipelined(rng: Random, token: str) -> Case:
    many = []
    count = rng.randint(2, 5)
    for number in range(count):
        kind, body = bad_fields(rng)
        last = number == count - 1
        many.append(_request("POST", f"/{kind}", token, body, close=last))
    return Case((b"".join(many),), count)
