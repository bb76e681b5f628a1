"""The OpenAPI 3.1 document, made from the structs that read and write the bodies."""

from collections.abc import Iterable
from typing import Any

import msgspec

from portcullis.gateway import answers
from portcullis.gateway.orders import ORDERS, Order, ProductBody
from portcullis.gateway.problems import PROBLEMS, Problem

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_EVERYWHERE = ("unauthenticated", "rate_limited", "unavailable")
_OF_AN_ORDER = (
    "malformed",
    "insufficient_scope",
    "not_permitted",
    "transaction_conflict",
    "too_large",
    "invalid_value",
)
_REFUSALS = {
    "adddevice": ("device_exists", "no_device_key"),
    "removedevice": ("unknown_device", "device_not_active"),
    "addentitlement": (
        "unknown_device",
        "device_not_active",
        "unknown_product",
        "invalid_window",
    ),
    "removeentitlement": ("unknown_device", "device_not_active", "unknown_product"),
    "generateosm": ("unknown_device", "device_not_active", "invalid_window", "text_too_long"),
    "removeosm": ("unknown_message",),
    "rehit": ("unknown_device",),
}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "adddevice": {"device_id": "1234567890"},
    "removedevice": {"device_id": "1234567890"},
    "addentitlement": {
        "device_id": "1234567890",
        "product_id": 101,
        "ends_at": "2027-01-31T23:59:59+01:00",
    },
    "removeentitlement": {"device_id": "1234567890", "product_id": 101},
    "generateosm": {
        "device_id": "1234567890",
        "text": "Your subscription ends on Friday.",
        "duration_s": 30,
    },
    "removeosm": {"message_id": 42},
    "rehit": {"device_id": "1234567890"},
}


_REQUEST_ID = "019d2f0c3a5b7c4e8f1a2b3c4d5e6f70"
_AT = "2026-03-01T12:00:00.123456Z"
_ANSWERS: dict[str, dict[str, Any]] = {
    "OrderAccepted": {
        "request_id": _REQUEST_ID,
        "transaction_id": "sms-2026-000001",
        "status": "accepted",
        "accepted_at": _AT,
    },
    "RequestState": {
        "request_id": _REQUEST_ID,
        "kind": "addentitlement",
        "status": "on_air",
        "accepted_at": _AT,
        "transaction_id": "sms-2026-000001",
        "device_id": "1234567890",
        "encrypted_at": "2026-03-01T12:00:00.200000Z",
        "on_air_at": "2026-03-01T12:00:00.250000Z",
    },
    "DeviceState": {
        "device_id": "1234567890",
        "status": "active",
        "entitlements": [{"product_id": 101, "starts_at": "2026-03-01T12:00:00Z", "ends_at": None}],
        "number": 1772366400,
        "last_aired_at": "2026-03-01T12:00:00.250000Z",
        "messages": [
            {
                "message_id": 42,
                "text": "Your subscription ends on Friday.",
                "duration_s": 30,
                "position": 0,
                "priority": 0,
                "starts_at": "2026-03-01T12:00:00Z",
                "expires_at": "2026-03-08T12:00:00Z",
            }
        ],
    },
    "Product": {"product_id": 101, "name": "Sport"},
    "Catalogue": {"products": [{"product_id": 101, "name": "Sport"}]},
}
_BATCH_ANSWER = (
    f'{{"line":1,"status":"accepted","request_id":"{_REQUEST_ID}"}}\n'
    '{"line":2,"status":"refused","code":"unknown_product","detail":"…"}\n'
)


def document() -> dict[str, Any]:
    """The document as it is served at `/openapi.json`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Portcullis SMS-CAS interface",
            "version": "1.0.0",
            "description": "Orders of a subscriber management system to the head-end.",
        },
        "security": [{"oauth2": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "oauth2": {
                    "type": "oauth2",
                    "flows": {
                        "clientCredentials": {
                            "tokenUrl": "/oauth/token",
                            "scopes": {
                                "device": "add and remove devices",
                                "entitlement": "grant and revoke entitlements",
                                "message": "show and remove messages",
                                "product": "change the catalogue",
                                "read": "read requests, devices and the catalogue",
                                "rehit": "have what a device is to hold sent again",
                            },
                        }
                    },
                }
            },
        },
    }


def _schemas() -> dict[str, Any]:
    kinds: list[Any] = [shape for shape, _ in ORDERS.values()]
    kinds += [
        ProductBody,
        Problem,
        answers.OrderAccepted,
        answers.RequestState,
        answers.DeviceState,
        answers.Catalogue,
        answers.BatchLine,
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for shape, _ in ORDERS.values():
        # In a batch `op` says what a line is; on its own the path does.
        schema = schemas[shape.__name__]
        del schema["properties"]["op"]
        schema["required"].remove("op")
    schemas["Problem"]["properties"]["code"] = {"enum": sorted(PROBLEMS)}
    return schemas


def _paths() -> dict[str, Any]:
    paths = {
        f"/{kind}": {"post": _order(kind, shape, scope)} for kind, (shape, scope) in ORDERS.items()
    }
    paths["/batch"] = {"post": _batch()}
    request_id = _parameter("request_id", "path", {"type": "string"})
    transaction_id = _parameter(
        "transaction_id", "query", {"type": "string", "minLength": 1, "maxLength": 64}
    )
    paths["/requests/{request_id}"] = {
        "get": _read("Where a request is", "RequestState", ("not_found",), request_id)
    }
    paths["/requests"] = {
        "get": _read(
            "Where the request with a transaction_id is",
            "RequestState",
            ("not_found", "invalid_value"),
            transaction_id,
        )
    }
    device_id = _parameter("device_id", "path", {"type": "string", "pattern": "^[1-9][0-9]{0,12}$"})
    paths["/devices/{device_id}"] = {
        "get": _read(
            "What a device holds",
            "DeviceState",
            ("not_permitted", "unknown_device", "invalid_value"),
            device_id,
        )
    }
    paths["/products/{product_id}"] = {"put": _put_product()}
    paths["/products"] = {"get": _read("The catalogue", "Catalogue", ())}
    return paths


def _order(kind: str, shape: type[Order], scope: str) -> dict[str, Any]:
    example = {"transaction_id": "sms-2026-000001"} | _EXAMPLES[kind]
    return {
        "operationId": kind,
        "summary": (shape.__doc__ or "").strip(),
        "security": [{"oauth2": [scope]}],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": _ref(shape.__name__), "example": example}},
        },
        "responses": {
            "202": _answer("Committed", "OrderAccepted"),
            **_problems((*_EVERYWHERE, *_OF_AN_ORDER, *_REFUSALS[kind])),
        },
    }


def _batch() -> dict[str, Any]:
    example = '{"op": "adddevice", "transaction_id": "t-1", "device_id": "1234567890"}\n'
    return {
        "operationId": "batch",
        "summary": "Up to 10,000 orders, a line each, applied in order",
        "requestBody": {
            "required": True,
            "content": {_NDJSON: {"schema": {"type": "string"}, "example": example}},
        },
        "responses": {
            "200": {
                "description": "A BatchLine for each line",
                "content": {_NDJSON: {"schema": {"type": "string"}, "example": _BATCH_ANSWER}},
            },
            **_problems((*_EVERYWHERE, "malformed", "too_large")),
        },
    }


def _put_product() -> dict[str, Any]:
    product_id = _parameter(
        "product_id", "path", {"type": "integer", "minimum": 1, "maximum": 65535}
    )
    return {
        "operationId": "putproduct",
        "summary": "Put a product into the catalogue, or rename it",
        "security": [{"oauth2": ["product"]}],
        "parameters": [product_id],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": _ref("ProductBody"), "example": {"name": "Sport"}}},
        },
        "responses": {
            "200": _answer("Renamed, or there already", "Product"),
            "201": _answer("New", "Product"),
            **_problems(
                (
                    *_EVERYWHERE,
                    "malformed",
                    "insufficient_scope",
                    "not_permitted",
                    "too_large",
                    "invalid_value",
                )
            ),
        },
    }


def _read(
    summary: str, schema: str, codes: Iterable[str], *parameters: dict[str, Any]
) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [{"oauth2": ["read"]}],
        "parameters": list(parameters),
        "responses": {
            "200": _answer("Found", schema),
            **_problems((*_EVERYWHERE, "insufficient_scope", *codes)),
        },
    }


def _problems(codes: Iterable[str]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    return {
        str(status): {
            "description": ", ".join(together),
            "content": {
                "application/problem+json": {
                    "schema": _ref("Problem"),
                    "examples": {code: {"value": _example(code)} for code in together},
                }
            },
        }
        for status, together in sorted(by_status.items())
    }


def _example(code: str) -> dict[str, Any]:
    status, title = PROBLEMS[code]
    return {
        "type": f"urn:portcullis:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": title,
    }


def _answer(description: str, schema: str) -> dict[str, Any]:
    content = {"schema": _ref(schema), "example": _ANSWERS[schema]}
    return {"description": description, "content": {_JSON: content}}


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": True, "schema": schema}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
