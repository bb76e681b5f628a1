"""The worst wait over the number of boxes, as an SVG. Pure."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 30, 50
_COLOURS = ("#1b6ca8", "#d1495b", "#3c8d5a")
_STEPS = {1: "1 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36_000: "10 h", 360_000: "100 h"}

Points = Sequence[tuple[int, float]]


def chart(lines: Mapping[str, Points], here: tuple[int, float]) -> str:
    """Lines of (boxes, seconds) by what they are called, and the point that was asked for."""
    points = [*(point for line in lines.values() for point in line), here]
    x0, x1 = _decades([boxes for boxes, _ in points])
    y0, y1 = _decades([wait_s for _, wait_s in points])

    def x(boxes: float) -> float:
        return _LEFT + (log10(boxes) - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)

    def y(wait_s: float) -> float:
        return _HEIGHT - _BOTTOM - (log10(wait_s) - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18">worst wait of a box, over the number of boxes</text>',
    ]
    for power in range(x0, x1 + 1):
        at = x(10**power)
        parts.append(
            f'<path d="M{at:.1f},{_TOP}V{_HEIGHT - _BOTTOM}" stroke="#ddd"/>'
            f'<text x="{at:.1f}" y="{_HEIGHT - 30}" text-anchor="middle">{10**power:,}</text>'
        )
    for wait_s, name in _STEPS.items():
        if y0 <= log10(wait_s) <= y1:
            parts.append(
                f'<path d="M{_LEFT},{y(wait_s):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>'
                f'<text x="{_LEFT - 8}" y="{y(wait_s) + 4:.1f}" text-anchor="end">{name}</text>'
            )
    for place, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        path = " ".join(f"{x(boxes):.1f},{y(wait_s):.1f}" for boxes, wait_s in line)
        label = _TOP + 16 * (place + 1)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{_WIDTH - _RIGHT + 10}" y="{label}" fill="{colour}">{escape(name)}</text>'
        )
    parts.append(f'<circle cx="{x(here[0]):.1f}" cy="{y(here[1]):.1f}" r="5" fill="black"/></svg>')
    return "\n".join(parts) + "\n"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around all values."""
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return low, max(high, low + 1)
