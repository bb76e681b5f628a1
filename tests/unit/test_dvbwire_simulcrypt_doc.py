"""docs/simulcrypt.md shows the state machines and the grammar as the tables have them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from dvbwire.simulcrypt import (
    CHANNEL_TRANSITIONS,
    GRAMMAR,
    STREAM_TRANSITIONS,
    ChannelState,
    ErrorStatus,
    MessageType,
    Side,
    StreamState,
)

DOC = Path(__file__).parents[2] / "docs" / "simulcrypt.md"

Transitions = (
    Mapping[tuple[ChannelState, Side, MessageType], ChannelState]
    | Mapping[tuple[StreamState, Side, MessageType], StreamState]
)


def diagram(transitions: Transitions) -> str:
    """Draw a transition table as a mermaid state diagram, one arrow per pair of states."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, side, message), after in transitions.items():
        label = f"{side.value} {message.name.lower()}"
        arrows.setdefault((before.value, after.value), []).append(label)
    first = next(iter(transitions))[0].value
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {a} --> {b}: {', '.join(labels)}" for (a, b), labels in arrows.items()]
    return "\n".join([*lines, "```"])


@pytest.mark.parametrize("transitions", [CHANNEL_TRANSITIONS, STREAM_TRANSITIONS])
def test_the_diagrams_are_those_of_the_tables(transitions: Transitions) -> None:
    """When this fails, the text it shows belongs into the document."""
    assert diagram(transitions) in DOC.read_text()


@pytest.mark.parametrize("message", list(MessageType))
def test_the_messages_are_listed_with_their_parameters(message: MessageType) -> None:
    """One row per message: number, name, parameters with their counts."""
    counts = {(1, 1): "", (0, 1): " 0..1", (1, None): " 1..n", (0, None): " 0..n"}
    cells = ", ".join(
        parameter.name.lower() + counts[rule.at_least, rule.at_most]
        for parameter, rule in GRAMMAR[message].items()
    )
    assert f"| 0x{message:04X} | {message.name.lower()} | {cells} |" in DOC.read_text()


@pytest.mark.parametrize("status", list(ErrorStatus))
def test_the_error_statuses_are_listed(status: ErrorStatus) -> None:
    """One row per status, saying who sends it and when."""
    assert f"| 0x{status:04X} | {status.name.lower()} | " in DOC.read_text()


def test_states_and_messages_are_all_in_use() -> None:
    """No state is unreachable, no message without a place."""
    assert {*CHANNEL_TRANSITIONS.values()} == set(ChannelState)
    assert {*STREAM_TRANSITIONS.values()} == set(StreamState)
    placed = {key[2] for key in CHANNEL_TRANSITIONS} | {key[2] for key in STREAM_TRANSITIONS}
    assert placed == set(MessageType)
