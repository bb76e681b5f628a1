"""What may be wrong with a request: RFC 9457 problems, by code."""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from portcullis.runtime.errors import PortcullisError

PROBLEMS: Mapping[str, tuple[int, str]] = {
    "malformed": (400, "The body is not JSON that can be read"),
    "unauthenticated": (401, "No valid access token"),
    "insufficient_scope": (403, "The token's scope does not cover this"),
    "not_permitted": (403, "This may not be done"),
    "not_found": (404, "There is no such thing"),
    "unknown_device": (404, "The device was never added"),
    "unknown_product": (404, "The product is not in the catalogue"),
    "unknown_message": (404, "There is no such message to remove"),
    "device_exists": (409, "The device is active already"),
    "device_not_active": (409, "The device has been removed"),
    "no_device_key": (409, "The device's key has not been imported"),
    "transaction_conflict": (409, "The transaction_id stands for another order"),
    "too_large": (413, "The request is too large"),
    "invalid_value": (422, "A value is missing or not as it must be"),
    "invalid_window": (422, "The window does not end after it starts"),
    "text_too_long": (422, "The text has more than 1000 characters"),
    "rate_limited": (429, "Too many requests"),
    "unavailable": (503, "The orders cannot be kept at the moment; repeat"),
}
_RETRY_AFTER_S = {"rate_limited": "1", "unavailable": "2"}


class ProblemError(PortcullisError):
    """A request that is answered with a problem. `headers` go with the answer."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        request_id: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.status = status or PROBLEMS[code][0]
        self.headers = dict(headers or {})
        if code in _RETRY_AFTER_S:
            self.headers.setdefault("Retry-After", _RETRY_AFTER_S[code])


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details; `code` says what a program may act on."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None


def problem_response(error: ProblemError) -> Response:
    """The answer to a request that went wrong."""
    problem = Problem(
        type=f"urn:portcullis:problem:{error.code}",
        title=PROBLEMS[error.code][1],
        status=error.status,
        code=error.code,
        detail=error.detail,
        request_id=error.request_id,
    )
    return Response(
        msgspec.json.encode(problem), error.status, error.headers, "application/problem+json"
    )


def unauthenticated(detail: str, *, has_token: bool) -> ProblemError:
    """401 as RFC 6750 3 wants it: without an error code where no token was sent."""
    challenge = 'Bearer realm="portcullis"'
    if has_token:
        challenge += f', error="invalid_token", error_description="{detail}"'
    return ProblemError("unauthenticated", detail, headers={"WWW-Authenticate": challenge})


def insufficient_scope(scope: str, request_id: str | None = None) -> ProblemError:
    """403 as RFC 6750 3.1 wants it."""
    challenge = f'Bearer realm="portcullis", error="insufficient_scope", scope="{scope}"'
    return ProblemError(
        "insufficient_scope",
        f"this needs the scope {scope!r}",
        request_id=request_id,
        headers={"WWW-Authenticate": challenge},
    )
