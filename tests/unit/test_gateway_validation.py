"""Bodies of orders: what is taken, in which canonical form, and what is refused."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portcullis.gateway.orders import ORDERS, body_hash, device_number, read_batch_line, read_order
from portcullis.gateway.permits import Caller
from portcullis.gateway.problems import PROBLEMS, ProblemError, problem_response
from portcullis.gateway.throttle import Sampler
from portcullis.runtime.oauth import SCOPES
from portcullis.store.orders import NewRequest

ALL = Caller("sms", frozenset(SCOPES))
GRANT: dict[str, Any] = {"transaction_id": "t", "device_id": "7", "product_id": 1}
TEXT: dict[str, Any] = {"transaction_id": "t", "device_id": "7", "text": "x", "duration_s": 0}


def read(kind: str, **body: Any) -> NewRequest:  # noqa: ANN401 (JSON)
    """Validate one body."""
    return read_order(ALL, kind, json.dumps(body).encode())


def code(request: NewRequest) -> str | None:
    """Why it was refused."""
    return request.refusal and request.refusal.code


@pytest.mark.parametrize("device_id", ["1", "1099511627775"])
def test_device_ids_are_those_of_five_bytes(device_id: str) -> None:
    """Both ends of the range."""
    request = read("adddevice", transaction_id="t", device_id=device_id)
    assert (request.refusal, request.device_id) == (None, int(device_id))


@pytest.mark.parametrize(
    "device_id",
    ["0", "01", "-1", "+1", " 1", "1\n", "1e3", "\u0661", "1099511627776", 1, None, True],
)
def test_other_device_ids_are_refused(device_id: object) -> None:
    """A JSON string of decimal digits, without ornament."""
    assert code(read("adddevice", transaction_id="t", device_id=device_id)) == "invalid_value"


@pytest.mark.parametrize("transaction_id", ["", "x" * 65, "a\nb", "\u200b", 5, None])
def test_transaction_ids_are_1_to_64_printable_characters(transaction_id: object) -> None:
    """A refused id is not kept either."""
    request = read("adddevice", transaction_id=transaction_id, device_id="1")
    assert (code(request), request.transaction_id) == ("invalid_value", None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"starts_at": "2026-01-01T10:00:00Z", "ends_at": "2026-01-01T11:00:01+01:00"}, None),
        (
            {"starts_at": "2026-01-01T10:00:00Z", "ends_at": "2026-01-01T11:00:00+01:00"},
            "invalid_window",
        ),
        (
            {"starts_at": "2026-01-01T10:00:00.1Z", "ends_at": "2026-01-01T10:00:00.9Z"},
            "invalid_window",
        ),
        ({"ends_at": "2106-02-07T06:28:14Z"}, None),
        ({"ends_at": "2106-02-07T06:28:15Z"}, "invalid_value"),
        ({"starts_at": "1970-01-01T00:00:00Z"}, None),
        ({"starts_at": "1969-12-31T23:59:59Z"}, "invalid_value"),
        ({"starts_at": "0001-01-01T00:00:00+23:59"}, "invalid_value"),
        ({"starts_at": "9999-12-31T23:59:59-23:59"}, "invalid_value"),
        ({"starts_at": "2026-01-01T10:00:00"}, "invalid_value"),
        ({"starts_at": "2026-01-01"}, "invalid_value"),
        ({"starts_at": 1_700_000_000}, "invalid_value"),
        ({"starts_at": None, "ends_at": None}, None),
    ],
)
def test_windows_are_whole_seconds_of_32_bits_with_an_offset(
    times: dict[str, object], expected: str | None
) -> None:
    """RFC 3339 with offset; fractions are dropped before the window is judged."""
    assert code(read("addentitlement", **GRANT, **times)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "ä" * 1000}, None),
        ({"text": "ä" * 1001}, "text_too_long"),
        ({"text": ""}, "invalid_value"),
        ({"duration_s": 65535}, None),
        ({"duration_s": 65536}, "invalid_value"),
        ({"duration_s": 1.5}, "invalid_value"),
        ({"position": 256}, "invalid_value"),
        ({"priority": -1}, "invalid_value"),
        ({"colour": "red"}, "invalid_value"),
        ({"op": "generateosm"}, "invalid_value"),
    ],
)
def test_messages_are_held_to_their_limits(fields: dict[str, object], expected: str | None) -> None:
    """Text, duration, position, priority; nothing unknown."""
    assert code(read("generateosm", **TEXT | fields)) == expected


def test_equal_orders_have_equal_hashes_however_they_are_spelt() -> None:
    """Another zone, fractions, null for omitted: the same. Omitted for given: another."""
    one = read("addentitlement", **GRANT, ends_at="2027-01-01T00:00:00.7Z")
    two = read("addentitlement", **GRANT, ends_at="2027-01-01T01:00:00+01:00", starts_at=None)
    open_ended = read("addentitlement", **GRANT)
    assert one.body_hash == two.body_hash != open_ended.body_hash
    assert read("removeentitlement", **GRANT).body_hash != open_ended.body_hash


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(0, 2**63 - 1))))
def test_a_hash_is_that_of_compact_sorted_json(body: dict[str, object]) -> None:
    """Of every release: an order repeated after an upgrade is the same order."""
    text = json.dumps(["kind", body], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert body_hash("kind", body) == sha256(text.encode()).digest()


@pytest.mark.parametrize("kind", ORDERS)
def test_every_call_needs_its_scope(kind: str) -> None:
    """And no other scope will do."""
    scope = ORDERS[kind][1]
    for scopes in (frozenset(), ALL.scopes - {scope}):
        assert code(read_order(Caller("sms", scopes), kind, b"{}")) == "insufficient_scope"
    assert code(read_order(Caller("sms", frozenset({scope})), kind, b"{}")) == "invalid_value"


def test_a_batch_line_says_what_it_is() -> None:
    """`op` names the call; what names none is refused."""
    line = json.dumps({"op": "addentitlement", **GRANT}).encode()
    request = read_batch_line(ALL, line)
    assert (request.kind, request.body_hash) == (
        "addentitlement",
        read("addentitlement", **GRANT).body_hash,
    )
    for bad in (b"{}", b'{"op": "batch"}', b'{"op": ["x"]}'):
        assert code(read_batch_line(ALL, bad)) == "invalid_value"


@given(st.binary(max_size=200))
def test_noise_is_malformed(raw: bytes) -> None:
    """No byte string is an error of ours."""
    request = read_batch_line(ALL, raw)
    assert code(request) in {"malformed", "invalid_value"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = [
    "transaction_id",
    "device_id",
    "product_id",
    "starts_at",
    "ends_at",
    "text",
    "message_id",
]


@settings(suppress_health_check=[HealthCheck.too_slow])  # a loaded machine draws slowly
@given(st.sampled_from(sorted(ORDERS)), st.dictionaries(st.sampled_from(_FIELDS), _JSON))
def test_any_json_is_taken_or_refused_with_a_known_code(kind: str, body: dict[str, Any]) -> None:
    """Whatever the values are."""
    refused = code(read_order(ALL, kind, json.dumps(body).encode()))
    assert refused is None or refused in PROBLEMS


def test_device_numbers_in_paths_follow_the_same_rule() -> None:
    """None for what is no id."""
    assert device_number("1099511627775") == 2**40 - 1
    assert [device_number(text) for text in ("0", "", "07", "²", "1099511627776")] == [None] * 5


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem_is_rfc_9457(problem: str) -> None:
    """type, title, status, detail and our code."""
    response = problem_response(ProblemError(problem, "why"))
    body = json.loads(bytes(response.body))
    assert (body["code"], body["status"], body["detail"]) == (problem, response.status_code, "why")
    assert ("retry-after" in response.headers) is (problem in {"rate_limited", "unavailable"})


def test_a_sample_counts_what_it_passes_over() -> None:
    """One a second, and the number of those between."""
    sampler = Sampler()
    assert [sampler.pick(at) for at in (1.0, 1.1, 1.9, 2.0, 2.5)] == [0, None, None, 2, None]
