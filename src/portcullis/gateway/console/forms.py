"""Forms: read, and believed only from the console's own pages."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from portcullis.gateway.console.people import Session
from portcullis.gateway.problems import ProblemError

_MAX_FORM_BYTES = 4096


def own_path(next_: str) -> str:
    """Where to go after the sign-in: a page of the console, whatever the form says."""
    is_ours = next_ == "/console" or next_.startswith(("/console/", "/console?"))
    return next_ if is_ours and next_.isprintable() and "\\" not in next_ else "/console"


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a small form; raises ProblemError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise ProblemError("too_large", "The form is too large.")
    try:
        return dict(parse_qsl(body.decode(), max_num_fields=10))
    except ValueError as error:
        raise ProblemError("malformed", "The form cannot be read.") from error


async def checked_form(request: Request, session: Session) -> Mapping[str, str]:
    """A form that this session's page has sent; raises ProblemError for any other."""
    form = await read_form(request)
    if not is_own(request) or form.get("csrf") != session.csrf:
        raise ProblemError("not_permitted", "The form is not of this session: reload the page.")
    return form


def is_own(request: Request) -> bool:
    """Whether a form comes from our own page, as the browser says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return origin.partition("://")[2] == request.headers.get("host")
