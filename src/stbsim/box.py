"""One set-top box: EMMs and the time in, what it holds out (docs/emm-format.md).

A part 2 or higher says nothing until the part 1 of its set has given the DEK, so it could be
anybody's. Such parts wait, a bounded number of them, and touch nothing; only a part that opens may
discard an older incomplete set. One damaged number can therefore never stop a box.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stbsim.emm import (
    NO_END,
    Entitlement,
    Header,
    Kind,
    Segment,
    State,
    derive_kek,
    derive_product_key,
    open_part,
    read_withdrawal,
    unwrap_dek,
)
from stbsim.errors import IgnoredError, Reason
from stbsim.events import (
    BoxEvent,
    EntitlementChanged,
    EntitlementGained,
    EntitlementLost,
    MessageEnd,
    MessageEnded,
    MessageShown,
    StateHeld,
)

_MAX_WAITING_PARTS = 32
_EPOCHS = 256  # product epochs count modulo this


@dataclass(slots=True)
class _Collected:
    """A set whose part 1 has been opened."""

    number: tuple[int, int]
    parts: int
    dek: AESGCM
    payloads: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """A completed message whose expiry has not come; times in seconds."""

    message_id: int
    text: str
    position: int
    priority: int
    expiry: int
    duration: int


@dataclass(slots=True)
class _Remembered:
    expiry: int
    withdrawn: bool


@dataclass(slots=True)
class Box:
    """The state machine of one box.

    Attributes:
        device_id: its unique address, 1 to 2^40 - 1.
        device_key: 16 to 32 bytes, never printed.
        active: what the state held says; None if it never held one.
        number: (epoch, number) of the state held, None if it never held one.
        state_utc: UTC of the state held in seconds, the floor of the clock.
        entitlements: the records of the state held, ended ones too.
        messages: by message id.
        ignored: EMMs that did not move the box, by reason.
    """

    device_id: int
    device_key: bytes = field(repr=False)
    active: bool | None = None
    number: tuple[int, int] | None = None
    state_utc: int = 0
    entitlements: tuple[Entitlement, ...] = ()
    messages: dict[int, HeldMessage] = field(default_factory=dict)
    ignored: Counter[Reason] = field(default_factory=Counter)
    _heard_time: int = 0
    _kek: tuple[int, int, bytes] | None = field(default=None, repr=False)
    _collected: _Collected | None = field(default=None, repr=False)
    _waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=_MAX_WAITING_PARTS))
    _segments: dict[int, dict[int, Segment]] = field(default_factory=dict)
    _remembered: dict[int, _Remembered] = field(default_factory=dict)
    _in_force: dict[int, int] = field(default_factory=dict)
    _off_screen_at: dict[int, int | None] = field(default_factory=dict)  # None: no clock yet
    _steady: tuple[int, int] = (0, 0)

    @property
    def clock(self) -> int:
        """The box's time in seconds: the higher of its state's UTC and the newest TDT or TOT."""
        return max(self.state_utc, self._heard_time)

    def tick(self, time: int) -> list[BoxEvent]:
        """Hear a TDT or TOT: `time` in seconds since 1970."""
        self._heard_time = time
        since, until = self._steady
        return [] if since <= self.clock < until else self._settle()

    def section(self, section: bytes, ca_system_id: int) -> list[BoxEvent]:
        """Take one section of table_id 0x82 with this box's address.

        Args:
            section: the whole section.
            ca_system_id: that of the CA_descriptor which led to the section.
        """
        try:
            header = Header.of(section)
            match header.kind:
                case Kind.STATE:
                    return self._state_part(header, section, ca_system_id)
                case Kind.MESSAGE:
                    return self._message(header, section, ca_system_id)
                case Kind.WITHDRAWAL:
                    return self._withdrawal(header, section, ca_system_id)
        except IgnoredError as ignored:
            self.ignored[ignored.reason] += 1
            return []

    def product_key(self, product_id: int, epoch: int) -> bytes | None:
        """Return the 16-byte key that opens `epoch` of a product, None if not entitled to it.

        Of two records, which are of two chains, the one whose epoch is nearest above.
        """
        records = [
            record
            for record in self.entitlements
            if record.product_id == product_id and record.in_force(self.clock)
        ]
        for record in sorted(records, key=lambda one: (one.epoch - epoch) % _EPOCHS):
            key = derive_product_key(record.key, product_id, record.epoch, epoch)
            if key is not None:
                return key
        return None

    def _dek(self, header: Header, section: bytes, ca_system_id: int) -> AESGCM:
        if self._kek is None or self._kek[:2] != (ca_system_id, header.epoch):
            kek = derive_kek(self.device_key, ca_system_id, self.device_id, header.epoch)
            self._kek = (ca_system_id, header.epoch, kek)
        return unwrap_dek(section, self._kek[2])

    def _state_part(self, header: Header, section: bytes, ca_system_id: int) -> list[BoxEvent]:
        number = (header.epoch, header.number)
        if self.number is not None and number <= self.number:
            raise IgnoredError(Reason.NOT_NEWER)
        collected = self._collected
        if collected is not None and number < collected.number:
            raise IgnoredError(Reason.OLDER_THAN_COLLECTED)
        if collected is not None and number == collected.number:
            self._collect(collected, header, section)
        elif header.part == 1:
            collected = self._start_set(header, section, ca_system_id)
        elif section in self._waiting:
            raise IgnoredError(Reason.REPEATED)
        else:
            self._waiting.append(section)
            return []
        if len(collected.payloads) < collected.parts:
            return []
        self._collected = None
        payload = b"".join(collected.payloads[part] for part in sorted(collected.payloads))
        return self._hold(collected.number, State.of(payload))

    def _start_set(self, header: Header, section: bytes, ca_system_id: int) -> _Collected:
        dek = self._dek(header, section, ca_system_id)
        number = (header.epoch, header.number)
        payloads = {1: open_part(section, header, dek)}
        self._collected = collected = _Collected(number, header.parts, dek, payloads)
        waiting = list(self._waiting)
        self._waiting.clear()
        for part in waiting:
            other = Header.of(part)
            if (other.epoch, other.number) > number:
                self._waiting.append(part)
            elif (other.epoch, other.number) == number:
                try:
                    self._collect(collected, other, part)
                except IgnoredError as ignored:
                    self.ignored[ignored.reason] += 1
        return collected

    def _collect(self, collected: _Collected, header: Header, section: bytes) -> None:
        if header.part in collected.payloads:
            raise IgnoredError(Reason.REPEATED)
        if header.parts != collected.parts:
            raise IgnoredError(Reason.MALFORMED)
        collected.payloads[header.part] = open_part(section, header, collected.dek)

    def _hold(self, number: tuple[int, int], state: State) -> list[BoxEvent]:
        self.number = number
        self.active = state.active
        self.entitlements = state.entitlements
        self.state_utc = state.utc
        events: list[BoxEvent] = [StateHeld(self.device_id, *number, active=state.active)]
        if not state.active:
            events += self._drop_messages(list(self.messages), MessageEnd.REMOVED)
            self._segments.clear()
        return events + self._settle()

    def _message(self, header: Header, section: bytes, ca_system_id: int) -> list[BoxEvent]:
        message_id = header.number
        if message_id in self._remembered:
            raise IgnoredError(Reason.REPEATED)
        if self.active is False:
            raise IgnoredError(Reason.REMOVED)
        dek = self._dek(header, section, ca_system_id)
        segment = Segment.of(open_part(section, header, dek))
        if segment.expiry <= self.clock:
            raise IgnoredError(Reason.EXPIRED)
        collected = self._segments.get(message_id, {})
        if segment.segment in collected:
            raise IgnoredError(Reason.REPEATED)
        if any(other.segments != segment.segments for other in collected.values()):
            raise IgnoredError(Reason.MALFORMED)
        collected[segment.segment] = segment
        self._segments[message_id] = collected
        if len(collected) < segment.segments:
            return self._settle()
        del self._segments[message_id]
        message = HeldMessage(
            message_id,
            "".join(collected[place].text for place in sorted(collected)),
            segment.position,
            segment.priority,
            segment.expiry,
            segment.duration,
        )
        self.messages[message_id] = message
        self._off_screen_at[message_id] = None
        self._remembered[message_id] = _Remembered(segment.expiry, withdrawn=False)
        shown = MessageShown(
            self.device_id,
            message_id,
            message.text,
            segment.duration,
            message.position,
            message.priority,
        )
        return [shown, *self._settle()]

    def _withdrawal(self, header: Header, section: bytes, ca_system_id: int) -> list[BoxEvent]:
        message_id = header.number
        remembered = self._remembered.get(message_id)
        if remembered is not None and remembered.withdrawn:
            raise IgnoredError(Reason.REPEATED)
        dek = self._dek(header, section, ca_system_id)
        expiry = read_withdrawal(open_part(section, header, dek))
        if expiry <= self.clock:
            raise IgnoredError(Reason.EXPIRED)
        if remembered is not None:
            expiry = max(expiry, remembered.expiry)
        self._remembered[message_id] = _Remembered(expiry, withdrawn=True)
        self._segments.pop(message_id, None)
        held = [message_id] if message_id in self.messages else []
        return self._drop_messages(held, MessageEnd.WITHDRAWN) + self._settle()

    def _drop_messages(self, message_ids: list[int], why: MessageEnd) -> list[BoxEvent]:
        for message_id in message_ids:
            del self.messages[message_id]
        return self._take_off_screen(message_ids, why)

    def _take_off_screen(self, message_ids: list[int], why: MessageEnd) -> list[BoxEvent]:
        on_screen = [message_id for message_id in message_ids if message_id in self._off_screen_at]
        for message_id in on_screen:
            del self._off_screen_at[message_id]
        return [MessageEnded(self.device_id, message_id, why) for message_id in on_screen]

    def _settle(self) -> list[BoxEvent]:
        """Bring entitlements and messages to the box's clock, and note how long that holds."""
        now = self.clock
        events = self._settle_messages(now) + self._settle_entitlements(now)
        turns = [
            *(record.starts_at for record in self.entitlements),
            *(record.ends_at for record in self.entitlements),
            *(message.expiry for message in self.messages.values()),
            *(off_at for off_at in self._off_screen_at.values() if off_at is not None),
            *(each.expiry for each in self._remembered.values()),
            *(each.expiry for collected in self._segments.values() for each in collected.values()),
        ]
        # Without a clock nothing is steady: the first time heard starts the durations.
        until = min((turn for turn in turns if turn > now), default=NO_END)
        self._steady = (now, until) if now else (0, 0)
        return events

    def _settle_messages(self, now: int) -> list[BoxEvent]:
        expired = [each.message_id for each in self.messages.values() if each.expiry <= now]
        events = self._drop_messages(expired, MessageEnd.EXPIRED)
        over = [
            message_id
            for message_id, off_at in self._off_screen_at.items()
            if off_at is not None and off_at <= now
        ]
        events += self._take_off_screen(over, MessageEnd.DURATION)
        for message_id in [each for each, off_at in self._off_screen_at.items() if off_at is None]:
            duration = self.messages[message_id].duration
            if now:
                self._off_screen_at[message_id] = now + duration if duration else NO_END
        self._remembered = {
            message_id: each for message_id, each in self._remembered.items() if each.expiry > now
        }
        self._segments = {
            message_id: collected
            for message_id, collected in self._segments.items()
            if all(each.expiry > now for each in collected.values())
        }
        return events

    def _settle_entitlements(self, now: int) -> list[BoxEvent]:
        before = self._in_force
        after: dict[int, int] = {}
        for record in self.entitlements:
            if record.in_force(now):
                other_end = after.get(record.product_id, 0)
                after[record.product_id] = max(record.ends_at, other_end)
        self._in_force = after
        lost = [EntitlementLost(self.device_id, each) for each in before if each not in after]
        held: list[BoxEvent] = []
        for product_id, end in after.items():
            ends_at = None if end == NO_END else end
            if product_id not in before:
                held.append(EntitlementGained(self.device_id, product_id, ends_at))
            elif before[product_id] != end:
                held.append(EntitlementChanged(self.device_id, product_id, ends_at))
        return [*lost, *held]
