"""Proof 3: each connection cut in the middle of a message, and what comes of its own accord.

Recovery: from the cut until an order given then has reached its box.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence

import pytest

from dvbwire.simulcrypt import ErrorStatus, ParameterType
from dvbwire.simulcrypt import MessageType as Type
from dvbwire.simulcrypt.grammar import GRAMMAR
from dvbwire.simulcrypt.message import Message
from dvbwire.simulcrypt.registry import Side
from dvbwire.simulcrypt.transitions import CHANNEL_TRANSITIONS, STREAM_TRANSITIONS
from tests.faults.figures import record
from tests.faults.probe import Probe
from tests.faults.proxy import CALLER, TARGET, AfterBytes, Cutter, FaultProxy
from tests.faults.scale import IS_FULL
from tests.faults.simulcrypt_cuts import HalfMessage, InMessage
from tests.faults.system import System
from tests.faults.wires import DATABASE, Wires

CUTS = 10 if IS_FULL else 1
RECOVERED_WITHIN_S = 5.0 if IS_FULL else 30.0  # the short form shares its machine
CUT_WITHIN_S = 60.0

# Cycler and multiplexer have a test of their own.
WIRES = [
    ("sms", "haproxy"),
    ("haproxy", "gateway1"),
    ("gateway", DATABASE),
    ("emmg", DATABASE),
    ("cycler", DATABASE),
    ("emmg", "encryptor1"),
]

SPOKEN = {  # as cycler and multiplexer come to say them when they connect
    CALLER: [
        Type.CHANNEL_SETUP,
        Type.STREAM_SETUP,
        Type.STREAM_BW_REQUEST,
        Type.DATA_PROVISION,
    ],
    TARGET: [
        Type.CHANNEL_STATUS,
        Type.STREAM_STATUS,
        Type.STREAM_BW_ALLOCATION,
    ],
}
AT_THE_END = {  # as they say them when the cycler is stopped
    CALLER: [Type.STREAM_CLOSE_REQUEST, Type.CHANNEL_CLOSE],
    TARGET: [Type.STREAM_CLOSE_RESPONSE],
}
UNSPOKEN = {  # what either may say at any time, and says seldom
    CALLER: [
        Type.CHANNEL_TEST,
        Type.CHANNEL_STATUS,
        Type.CHANNEL_ERROR,
        Type.STREAM_TEST,
        Type.STREAM_STATUS,
        Type.STREAM_ERROR,
    ],
    TARGET: [
        Type.CHANNEL_TEST,
        Type.CHANNEL_ERROR,
        Type.STREAM_TEST,
        Type.STREAM_ERROR,
    ],
}


@pytest.mark.timeout(900)
def test_simulcrypt_may_be_cut_at_every_message(wired: System, wires: Wires, seed: int) -> None:
    """In the middle of every message that either side may send; of some, in the short form."""
    wire = wires["cycler", "mux1"]
    chance = random.Random(seed)
    recoveries_s = {}
    with wired.load(seed) as sms, wired.probe() as probe:
        probe.seen()
        for way, message_type in chosen(SPOKEN, chance):
            cutter: Cutter = InMessage(way, message_type)
            recoveries_s[way, message_type] = recover(wire, cutter, wire.cut_now, probe)
        for way, message_type in chosen(UNSPOKEN, chance):
            after = Type.DATA_PROVISION if way == CALLER else Type.STREAM_BW_ALLOCATION
            cutter = HalfMessage(way, after, message(message_type))
            recoveries_s[way, message_type] = recover(wire, cutter, wire.cut_now, probe)
        for way, message_type in chosen(AT_THE_END, chance):
            cutter = InMessage(way, message_type)
            recoveries_s[way, message_type] = recover_from_stop(wired, wire, cutter, probe)
    figures = wired.verdict(sms)
    slow = {cut: took for cut, took in recoveries_s.items() if took > RECOVERED_WITHIN_S}
    assert slow == {}
    took = list(recoveries_s.values())
    record(
        "3-cut-simulcrypt",
        "cycler to multiplexer cut in the middle of every message type",
        faults=len(took),
        worst_gap_s=sms.worst_gap_s,
        mean_recovery_s=sum(took) / len(took),
        worst_recovery_s=max(took),
        seed=seed,
        **figures,
    )


def test_every_message_of_the_interface_is_among_them() -> None:
    """Each that either side may send in any state of channel or stream."""
    sides = {CALLER: Side.EMMG, TARGET: Side.MUX}
    cut = {
        (sides[way], message_type)
        for table in (SPOKEN, UNSPOKEN, AT_THE_END)
        for way, types in table.items()
        for message_type in types
    }
    of_channel = {(side, message_type) for _, side, message_type in CHANNEL_TRANSITIONS}
    of_stream = {(side, message_type) for _, side, message_type in STREAM_TRANSITIONS}
    assert cut == of_channel | of_stream


@pytest.mark.timeout(1800)
def test_each_connection_may_be_cut_anywhere(wired: System, wires: Wires, seed: int) -> None:
    """After any number of bytes, one way and the other."""
    chance = random.Random(seed)
    recoveries_s: dict[tuple[str, str], list[float]] = {ends: [] for ends in WIRES}
    with wired.load(seed) as sms, wired.probe() as probe:
        probe.seen()
        for _ in range(CUTS):
            for ends in WIRES:
                for way in (CALLER, TARGET):
                    cutter = AfterBytes(way, chance.randint(1, 5000))
                    took = recover(wires[ends], cutter, lambda: None, probe)
                    recoveries_s[ends].append(took)
    figures = wired.verdict(sms)
    every = [took for several in recoveries_s.values() for took in several]
    assert max(every) < RECOVERED_WITHIN_S, recoveries_s
    record(
        "3-cut-anywhere",
        "each connection cut after any number of bytes",
        faults=len(every),
        worst_gap_s=sms.worst_gap_s,
        mean_recovery_s=sum(every) / len(every),
        worst_recovery_s=max(every),
        seed=seed,
        **{f"worst_{a}_{b}": max(several) for (a, b), several in recoveries_s.items()},
        **figures,
    )


def chosen(
    table: Mapping[str, Sequence[Type]], chance: random.Random
) -> Sequence[tuple[str, Type]]:
    """Every message of a table with who sends it; two of them in the short form."""
    every = [(way, message_type) for way, types in table.items() for message_type in types]
    return every if IS_FULL else chance.sample(every, 2)


def recover(wire: FaultProxy, cutter: Cutter, provoke: Callable[[], None], probe: Probe) -> float:
    """Cut once; seconds until an order given after that has reached its box."""
    wire.cut_at(cutter)
    provoke()
    assert wire.cut_done.wait(CUT_WITHIN_S), "nothing came along that could be cut"
    cut_at = time.monotonic()
    return probe.seen() - cut_at


def recover_from_stop(system: System, wire: FaultProxy, cutter: Cutter, probe: Probe) -> float:
    """Cut while the cycler takes its leave; seconds from its next start, likewise."""
    keeper = system.head_end.keeper
    wire.cut_at(cutter)
    wire.cut_now()
    probe.seen()
    keeper.stop("cycler1")
    assert wire.cut_done.wait(CUT_WITHIN_S), "the cycler left without a word"
    keeper.wait_back("cycler1")
    ready_at = keeper.parts["cycler1"].ready_at
    assert ready_at is not None
    return probe.seen() - ready_at


def message(message_type: Type) -> bytes:
    """A message of this type about the cycler's stream, as the grammar has it."""
    values = {
        ParameterType.CLIENT_ID: 0xFFF00001,
        ParameterType.ERROR_STATUS: ErrorStatus.UNKNOWN_ERROR,
    }
    return Message.build(
        3,
        message_type,
        *(
            (name, values.get(name, 1))
            for name, rule in GRAMMAR[message_type].items()
            if rule.at_least
        ),
    ).encode()
