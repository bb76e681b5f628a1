"""One stream: airs what the carousel picks, at the pace allocated, while it has the lease."""

import asyncio
import json
from collections import Counter
from datetime import timedelta
from itertools import accumulate, chain, pairwise

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dvbwire.ts import PACKET_SIZE
from portcullis.cycler.arena import Emms
from portcullis.cycler.carousel import Carousel, Picks
from portcullis.cycler.config import StreamConfig
from portcullis.cycler.cycles import CycleCounter
from portcullis.cycler.follower import DatabaseClock
from portcullis.cycler.history import History
from portcullis.cycler.link import Link, LinkState, Provisions
from portcullis.cycler.pacer import MAX_PACKETS_PER_MESSAGE, Pacer
from portcullis.cycler.reports import AsRunReports, FirstAiringReports
from portcullis.runtime.logging import get_logger
from portcullis.runtime.memory import give_back
from portcullis.runtime.metrics import histogram
from portcullis.runtime.threads import in_thread
from portcullis.store.airable import EmmKey
from portcullis.store.database import reason_of
from portcullis.store.feed import first_aired_times
from portcullis.store.leases import Held, lease_note, release_lease, take_lease

LEASE_TTL = timedelta(seconds=3)
_RENEW_S = 1.0
_AFTER_OUTAGE_S = 2.0  # what a standby leaves a holder, when the database is back, to renew
_LEAST_TICK_S, _MOST_TICK_S = 0.002, 0.006
_IDLE_S = 1.0
_CYCLES_S = 0.1  # how often it is looked where the cycle stands

ORDER_TO_AIR_S = histogram(
    "portcullis_cycler_order_to_air_seconds",
    "From an order (or the start of its window) to its first airing; the oldest of those in an EMM",
    "stream",
    buckets=(0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)

log = get_logger("portcullis.cycler.stream")


def tick_s(streams: int) -> float:
    """Seconds between the turns of a stream, and between news and the turn that they share.

    Most of what a turn costs is to wake up for it: streams have fewer where there are more.
    """
    return min(max(_LEAST_TICK_S, streams / 1000), _MOST_TICK_S)


class Stream:
    """One stream of the configuration.

    Attributes:
        holds: whether this process has the stream's lease, as far as it knows.
        aired: counts of packets, EMMs and bytes (188 a packet) handed to the multiplexer.
    """

    def __init__(
        self,
        config: StreamConfig,
        engine: Engine,
        holder: str,
        clock: DatabaseClock,
        *,
        tick_s: float,
        first_airings: FirstAiringReports,
        asrun: AsRunReports,
    ) -> None:
        self.config = config
        self._tick_s = tick_s
        self.carousel = Carousel(config.classes)
        self.wake = asyncio.Event()
        self.link = Link(config, self.wake.set)
        self.asrun = asrun
        self.holds = False
        self.other_holder: str | None = None
        self._sure_until = float("-inf")
        self._held_at_stop = False
        self._database_was_away = False
        self.aired: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._cycles = CycleCounter()
        self._cycles_at = float("-inf")
        self._history = History()
        self._engine = engine
        self._holder = holder
        self._clock = clock
        self._first_airings = first_airings
        self._pacer = Pacer(0, clock.now())
        self._pace_kbit_s = 0
        self._made_of: Emms | None = None
        self._made: Provisions
        self._timer: asyncio.TimerHandle
        self._failure: Exception | None = None
        self._log = log.bind(stream=config.name)

    def check(self) -> str | None:
        """Readiness: airing, or standing by with an open channel."""
        if self.link.state is LinkState.DOWN:
            return f"no channel to {self.config.mux}"
        if self.holds and self.link.state is not LinkState.STREAM_OPEN:
            return f"stream is {self.link.state.value}"
        if not self.holds and self.other_holder is None:
            return "no lease yet"
        return None

    @property
    def is_unconfirmed(self) -> bool:
        """Whether it airs under a lease that it could not renew in time: another may air too."""
        return self.holds and self._clock.now() > self._sure_until

    def notice(self) -> str | None:
        """What is wrong though the stream is on air."""
        return "airing without its lease: the database is away" if self.is_unconfirmed else None

    async def air(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        self._on_time()
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                if self._failure is not None:
                    raise self._failure
                # News: orders that come in one by one share the next turn.
                if self._timer.when() > loop.time() + self._tick_s:
                    self._timer.cancel()
                    self._timer = loop.call_later(self._tick_s, self._on_time)
        finally:
            self._timer.cancel()

    def _on_time(self) -> None:
        """Send, and wait for the next time: a timer alone, which costs less than a task."""
        try:
            delay_s = self.turn()
        except Exception as error:  # noqa: BLE001 (`air` raises it)
            self._failure = error
            self.wake.set()
            delay_s = _IDLE_S
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_time)

    def turn(self) -> float:
        """Send what may be sent now; returns the seconds until it is worth while again."""
        if not (self.holds and self.link.ready):
            self._pace_kbit_s, self._made_of = 0, None
            self._cycles.silent()
            return _IDLE_S
        now, wall = self._clock.now(), self._clock.wall()
        if self._pace_kbit_s == 0:
            self._pacer = Pacer(0, now)
        if self.link.allocated_kbit_s != self._pace_kbit_s:
            self._pace_kbit_s = self.link.allocated_kbit_s
            self._pacer.set_rate(self._pace_kbit_s, now)
        if now >= self._cycles_at:
            self._cycles_at = now + _CYCLES_S
            self._cycles.airing(now, self.carousel.cycle(now))
        packets = self._pacer.available(now)
        picks = self.carousel.take(packets, now, wall)
        if picks.pieces:
            self._pacer.spend(picks.packets)
            self._send(picks, wall)
        idle = 0.0 if picks.packets == packets else self.carousel.next_due(wall - now) - now
        return min(max(idle, self._pacer.delay(1), self._tick_s), _IDLE_S)

    async def keep_lease(self) -> None:
        """Take and renew the lease until cancelled; without the database, go on as before."""
        while True:
            delay_s = _RENEW_S
            try:
                delay_s = await self._renew()
            except SQLAlchemyError as error:
                self._database_was_away = True
                self.counts["lease_errors"] += 1
                self._log.warning("cannot renew the lease", reason=reason_of(error))
            await asyncio.sleep(delay_s)

    async def say_goodbye(self) -> None:
        """Close stream and channel politely; bounded by about 2 s."""
        self._held_at_stop, self.holds = self.holds, False
        await self.link.close()

    async def let_go(self) -> None:
        """After the goodbye: let another have the lease, with the ring's position."""
        if not self._held_at_stop:
            return
        try:
            await self._release()
        except SQLAlchemyError as error:
            self._log.warning("cannot release the lease", reason=reason_of(error))

    async def _renew(self) -> float:
        """Ask for the lease, or for more of it; returns the seconds until it is to ask again."""
        if (down_since := self.link.down_since) is not None:
            # Another cycler may reach the multiplexer: no lease without a channel.
            if self.holds and self._clock.now() - down_since > LEASE_TTL.total_seconds():
                await self._stand_down()
            if not self.holds:
                return _RENEW_S
        if self._database_was_away and not self.holds:
            await in_thread(lease_note, self._engine, self.config.lease)
            self._database_was_away = False
            return _AFTER_OUTAGE_S
        asked_at = self._clock.now()
        held = await in_thread(self._take_lease, self._note() if self.holds else None)
        self._database_was_away = False
        if held is None:
            return _RENEW_S
        if held.holder == self._holder:
            self._sure_until = asked_at + LEASE_TTL.total_seconds()
            if not self.holds:
                await self._take_over()
            return _RENEW_S
        self.other_holder = held.holder
        if self.holds:
            self.counts["lease_lost"] += 1
            self._log.error("another cycler airs this stream: standing by", holder=held.holder)
            self.holds = False
            self.link.want(wanted=False)
        await self._hear_of_airings()
        return min(_RENEW_S, held.left_s)

    async def _take_over(self) -> None:
        """Start where the last holder has stopped: neither a burst nor a gap."""
        note = await in_thread(lease_note, self._engine, self.config.lease)
        await self._hear_of_airings()
        position = _position_of(note)
        self._cycles.take_over(_cycles_of(note))
        self._history.take_over(note)
        self.carousel.place(self._clock.now(), self._clock.wall(), position)
        give_back()
        self.holds = True
        self.other_holder = None
        self._log.info("airing", position=position)
        self.link.want(wanted=True)
        self.wake.set()

    async def _stand_down(self) -> None:
        """Let another have the lease."""
        self._log.warning("no channel to the multiplexer: letting go of the lease")
        self.holds = False
        self.other_holder = None
        self.link.want(wanted=False)
        await self._release()

    async def _release(self) -> None:
        """Leave the ring's position with the lease, and let go of it."""
        await in_thread(self._take_lease, self._note())
        await in_thread(release_lease, self._engine, self.config.lease, self._holder)

    async def _hear_of_airings(self) -> None:
        """Ask which of the EMMs that wait here for their first airing have had it elsewhere."""
        waiting = self.carousel.first_waiting
        if not waiting:
            return
        now, wall = self._clock.now(), self._clock.wall()
        aired = await in_thread(first_aired_times, self._engine, waiting)
        for key, revision, first_aired in aired:
            self.carousel.aired_elsewhere(key, revision, first_aired, now, wall)

    def _take_lease(self, note: str | None) -> Held | None:
        return take_lease(self._engine, self.config.lease, self._holder, LEASE_TTL, note)

    def _note(self) -> str:
        """What is kept with the lease: for the next holder, and for people (store/streams.py)."""
        carousel, now = self.carousel, self._clock.now()
        allocated_kbit_s = self.link.allocated_kbit_s if self.link.ready else 0
        self._history.note(self._clock.wall(), self.aired["packets"], allocated_kbit_s)
        return json.dumps(
            {
                "position": carousel.position,
                "revision": carousel.revision,
                "cycles": self._cycles.total,
                "cycle_s": carousel.cycle(now).seconds,
                "mux": self.config.mux,
                "link": self.link.state.value,
                "asked_kbit_s": self.config.bandwidth_kbit_s,
                "allocated_kbit_s": allocated_kbit_s,
                "first_waiting": carousel.first_size,
                "classes": [
                    {
                        "name": one.name,
                        "every_s": float(one.every),
                        "airings": one.airings,
                        "emms": carousel.size(index),
                        "stretch": round(carousel.stretch(index, now), 3),
                    }
                    for index, one in enumerate(self.config.classes)
                ],
                "history": self._history.rows(),
            },
            separators=(",", ":"),
        )

    def _send(self, picks: Picks, wall: float) -> None:
        """Hand picks over, seven packets a message at most, and report them."""
        if self.link.sends_sections:
            sections = [section for piece in picks.pieces for section in piece.sections]
            self.link.send([sections[start:end] for start, end in pairwise(_cuts(picks))])
        elif (provisions := self._ready_made(picks)) is not None:
            self.link.send_provisions(provisions)
        else:
            packets = b"".join(piece.packets for piece in picks.pieces)
            if picks.packets == len(picks):
                self.link.send_provisions(self.link.provisions(packets, MAX_PACKETS_PER_MESSAGE))
            else:
                costs = chain.from_iterable(piece.costs for piece in picks.pieces)
                ends = [0, *(end * PACKET_SIZE for end in accumulate(costs))]
                cuts = pairwise(_cuts(picks))
                self.link.send([[packets[ends[start] : ends[end]]] for start, end in cuts])
        time_us = int(wall * 1e6)
        for emms, start, stop in picks.pieces:
            self.asrun.batch.add(time_us, emms.headers, start, stop)
            self.aired["emms"] += stop - start
        if picks.first_airings:
            self._first_airings.add(picks.first_airings)
            for aired in picks.first_airings:
                if aired.completes_set and aired.waited_s is not None:
                    ORDER_TO_AIR_S.labels(self.config.name).observe(aired.waited_s)
        self.aired["packets"] += picks.packets

    def _ready_made(self, picks: Picks) -> Provisions | None:
        """Picks as messages out of all those of their EMMs, where these are cut at the same places.

        What is looked up for several turns is made into messages once.
        """
        if len(picks.pieces) > 1:
            return None
        ((emms, start, stop),) = picks.pieces
        if not emms.are_even or start % MAX_PACKETS_PER_MESSAGE or stop % MAX_PACKETS_PER_MESSAGE:
            return None
        if emms is not self._made_of:
            self._made_of = emms
            self._made = self.link.provisions(emms.packets, MAX_PACKETS_PER_MESSAGE)
        return self._made.some(start // MAX_PACKETS_PER_MESSAGE, stop // MAX_PACKETS_PER_MESSAGE)


def _cuts(picks: Picks) -> list[int]:
    """Where EMMs are cut into messages of seven packets at most."""
    cuts, packets = [0], 0
    for place, cost in enumerate(cost for piece in picks.pieces for cost in piece.costs):
        if packets + cost > MAX_PACKETS_PER_MESSAGE:
            cuts.append(place)
            packets = 0
        packets += cost
    return [*cuts, len(picks)]


def _position_of(note: str) -> EmmKey:
    """The ring position of a note; the beginning if there is none."""
    try:
        device_id, message_id, part = json.loads(note)["position"]
        return (int(device_id), int(message_id), int(part))
    except (ValueError, KeyError, TypeError):
        return (0, 0, 0)


def _cycles_of(note: str) -> float:
    """The cycles of a note; none if it tells of none."""
    try:
        return float(json.loads(note)["cycles"])
    except (ValueError, KeyError, TypeError):
        return 0.0
