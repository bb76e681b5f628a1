"""Pictures as inline SVG, from numbers (pure)."""

from collections.abc import Sequence

from portcullis.store.streams import Minute

WIDTH, HEIGHT = 720, 180
_LEFT, _BOTTOM, _TOP, _RIGHT = 52, 24, 10, 8
_MINUTE_S = 60


def bandwidth(history: Sequence[Minute]) -> dict[str, object]:
    """Points of the rates sent and allocated, with the axes' labels, for `bandwidth.svg`."""
    top = _nice(max(max(one.sent_kbit_s, one.allocated_kbit_s) for one in history))
    first = history[0].begins_at
    minutes = max((history[-1].begins_at - first).total_seconds() / _MINUTE_S, 1)

    def x(one: Minute) -> float:
        passed = (one.begins_at - first).total_seconds() / _MINUTE_S / minutes
        return round(_LEFT + passed * (WIDTH - _LEFT - _RIGHT), 1)

    def y(kbit_s: float) -> float:
        return round(_TOP + (1 - kbit_s / top) * (HEIGHT - _TOP - _BOTTOM), 1)

    # One minute alone is drawn as wide as the picture.
    shown = history if len(history) > 1 else [history[0], history[0]]
    places = [x(one) for one in shown] if len(history) > 1 else [_LEFT, WIDTH - _RIGHT]
    sent = [f"{place},{y(one.sent_kbit_s)}" for place, one in zip(places, shown, strict=True)]
    allocated = [
        f"{place},{y(one.allocated_kbit_s)}" for place, one in zip(places, shown, strict=True)
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": _LEFT,
        "right": WIDTH - _RIGHT,
        "base": HEIGHT - _BOTTOM,
        "sent": " ".join(sent),
        "area": " ".join([f"{places[0]},{y(0)}", *sent, f"{places[-1]},{y(0)}"]),
        "allocated": " ".join(allocated),
        "marks": [(y(value), value) for value in (0, top // 2, top)],
        "begins": f"{first:%H:%M}",
        "ends": f"{history[-1].begins_at:%H:%M}",
    }


def _nice(value: int) -> int:
    """The next of 10, 20, 50, 100, 200 … that is not below."""
    step = 10
    while True:
        for factor in (1, 2, 5):
            if step * factor >= value:
                return step * factor
        step *= 10
