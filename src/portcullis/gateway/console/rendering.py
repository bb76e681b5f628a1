"""From templates and values to HTML (pure but for reading the templates)."""

import json
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

_HOUR_S, _MINUTE_S = 3600, 60


def render(template: str, **values: object) -> str:
    """A page; what a page need not have (`here`, `q`, `refresh`) is empty."""
    optional: dict[str, object] = {"here": None, "q": None, "refresh": None}
    return _ENVIRONMENT.get_template(template).render(optional | values)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _span(seconds: float) -> str:
    """A length of time as people say it."""
    whole = round(seconds)
    if whole >= _HOUR_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} min"
    if whole >= 2 * _MINUTE_S:
        return f"{whole // _MINUTE_S} min"
    return f"{seconds:.1f} s" if seconds < _MINUTE_S and seconds != whole else f"{whole} s"


def _by(body: str) -> str | None:
    """The person that an order of ours names."""
    by = json.loads(body).get("by")
    return by if isinstance(by, str) else None


def _pretty(body: str) -> str:
    return json.dumps(json.loads(body), indent=1, ensure_ascii=False)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("portcullis.gateway.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"stamp": _stamp, "span": _span, "by": _by, "pretty": _pretty}
    return environment


_ENVIRONMENT = _environment()
