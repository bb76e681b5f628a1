"""Sends raw bytes to an HTTP server, a connection a case, and tells what came back of each."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import httptools
import msgspec

from portcullis.gateway.problems import PROBLEMS
from tests.faults.http_rubbish import Case

_JSON_TYPES = ("application/json", "application/problem+json")
HANG_S = 30.0
SOON_S = 0.25


class _Answers:
    """Collects the answers of one connection (httptools calls back)."""

    def __init__(self) -> None:
        self.all: list[tuple[int, str, bytes]] = []
        self._type, self._body = "", b""
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        """A new answer."""
        self._type, self._body = "", b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field: what kind of body it is."""
        if name.lower() == b"content-type":
            self._type = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """More of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The answer is whole."""
        status = self.parser.get_status_code()
        if status >= 200:  # 100 Continue is no answer yet
            self.all.append((status, self._type, self._body))


@dataclass
class Tally:
    """What came of many requests.

    Attributes:
        sent: requests, as far as rubbish can be counted.
        outcomes: answers by code, `accepted`, or status where there is none of ours.
        hung_up: connections closed without an answer, their request being no whole one.
        faults: what must not be: each with the bytes that caused it.
    """

    sent: int = 0
    hung_up: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    request_ids: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        """Bad requests: those refused with a code, and those hung up on."""
        good = {"accepted", "ok"}
        return self.hung_up + sum(n for code, n in self.outcomes.items() if code not in good)

    def book(self, case: bytes, status: int, content_type: str, body: bytes) -> None:
        """Take one answer, and hold it to the contract of docs/api.md."""
        try:
            said = msgspec.json.decode(body) if content_type in _JSON_TYPES else {}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            said = {"unreadable": str(error)}
        if status < 400:
            self.outcomes["accepted" if status == 202 else "ok"] += 1
        elif "error" in said:
            self.outcomes[f"oauth {said['error']}"] += 1  # RFC 6749 5.2 has codes of its own
        elif content_type == "application/problem+json" and said.get("code") in PROBLEMS:
            self.outcomes[said["code"]] += 1
        else:
            self.faults.append(f"{status} without a code: {body[:200]!r} to {case[:300]!r}")
        if status >= 500 or "unreadable" in said:
            self.faults.append(f"{status} {body[:200]!r} to {case[:2000]!r}")
        if isinstance(said, dict) and "request_id" in said:
            self.request_ids[said["request_id"]] += 1


async def send_all(port: int, cases: Iterable[Case], tally: Tally, connections: int = 32) -> None:
    """Send every case, several at once; a case not answered in time is a fault."""
    waiting = iter(cases)

    async def work() -> None:
        for case in waiting:
            try:
                async with asyncio.timeout(HANG_S):
                    await _send(port, case, tally)
            except TimeoutError:
                tally.faults.append(f"no end in {HANG_S:.0f} s: {case.pieces!r}"[:2000])

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work())


async def _send(port: int, case: Case, tally: Tally) -> None:
    answers = _Answers()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tally.sent += case.requests
    try:
        for piece in case.pieces:
            writer.write(piece)
            await writer.drain()
        while data := await _heard(reader, writer, case, answers):
            answers.parser.feed_data(data)
    except OSError:
        pass  # it hung up before it had heard all
    except httptools.HttpParserError as error:
        tally.faults.append(f"an answer that is not HTTP ({error}) to {case.pieces!r}"[:2000])
    finally:
        writer.close()
    for answer in answers.all:
        tally.book(b"".join(case.pieces), *answer)
    if case.is_whole and len(answers.all) < case.requests:
        tally.faults.append(f"{len(answers.all)} answers to {case.pieces!r}"[:2000])
    elif not answers.all:
        tally.hung_up += 1


async def _heard(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, case: Case, answers: _Answers
) -> bytes:
    """More of the answers; where no more are to come, say that there are no more requests.

    Of what is no whole request the server may be waiting for the rest: it is told after a while.
    """
    if case.is_whole:
        if len(answers.all) >= case.requests:
            writer.write_eof()
    else:
        try:
            async with asyncio.timeout(SOON_S):
                return await reader.read(65_536)
        except TimeoutError:
            writer.write_eof()
    return await reader.read(65_536)
