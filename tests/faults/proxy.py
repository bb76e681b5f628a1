"""A TCP proxy that does harm on request: delays, cuts, goes silent. One thread for all of them.

Put between any two parts by giving the caller the proxy's port. Faults are asked for from
the test's thread; `FaultProxy.cut_done` tells when the one cut asked for has happened.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

CALLER, TARGET = "from caller", "from target"
"""Which way bytes go: sent by who connected, or by who was connected to."""

_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class Cutter(Protocol):
    """Says where to cut. Sees all that passes, chunk by chunk, connection by connection."""

    def last_words(self, connection: int, way: str, data: bytes) -> bytes | None:
        """What is still delivered before the cut, instead of this chunk; None: no cut here."""


class AfterBytes:
    """Cut a connection once `count` bytes have gone one way through it since now."""

    def __init__(self, way: str, count: int) -> None:
        self._way = way
        self._count = count
        self._seen: dict[int, int] = {}

    def last_words(self, connection: int, way: str, data: bytes) -> bytes | None:
        """Count; see `Cutter`."""
        if way != self._way:
            return None
        before = self._seen.get(connection, 0)
        self._seen[connection] = before + len(data)
        return data[: self._count - before] if before + len(data) >= self._count else None


class FaultProxy:
    """One listening port before one target.

    Attributes:
        port: where it listens, on 127.0.0.1.
        delay_s: how long each chunk is held back.
        cutter: where to cut next; forgotten once it has cut.
        cut_done: set by the cut that `cutter` asked for.
        passed: bytes by way, of connections that are over too.
    """

    def __init__(self, target: tuple[str, int], loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.cutter: Cutter | None = None
        self.cut_done = threading.Event()
        self.passed = {CALLER: 0, TARGET: 0}
        self._target = target
        self._loop = loop
        self._links: set[_Link] = set()
        self._is_silent = False
        self._is_refusing = False
        self._count = 0

    async def start(self) -> None:
        """Listen."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server

    def stop(self) -> None:
        """Listen no more."""
        self._server.close()

    def cut_at(self, cutter: Cutter) -> None:
        """Cut once, where `cutter` says."""
        self.cut_done.clear()
        self.cutter = cutter

    def cut_now(self) -> None:
        """Reset every connection."""

        def reset() -> None:
            for link in set(self._links):
                link.reset()

        self._call(reset)

    def refuse(self) -> None:
        """Reset every connection, and each new one at once, until `restore`."""
        self._is_refusing = True
        self.cut_now()

    def go_silent(self) -> None:
        """Half-open: connections stay, and new ones are taken, but nothing passes any more."""

        def silence() -> None:
            self._is_silent = True
            for link in self._links:
                link.is_silent = True

        self._call(silence)

    def restore(self) -> None:
        """Let new connections pass. Those gone silent stay so for ever: nobody closes them."""
        self._is_silent = self._is_refusing = False

    def _call(self, do: Callable[[], object]) -> None:
        done = threading.Event()

        def then() -> None:
            do()
            done.set()

        self._loop.call_soon_threadsafe(then)
        done.wait(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        link = _Link(self, self._count, writer)
        link.is_silent = self._is_silent
        self._links.add(link)
        try:
            if self._is_refusing:
                link.reset()
            else:
                with suppress(asyncio.CancelledError):  # the end of all: asyncio would log each
                    await link.run(reader, self._target)
        finally:
            self._links.discard(link)


class _Link:
    """One connection through the proxy: two pumps."""

    def __init__(self, proxy: FaultProxy, number: int, caller: asyncio.StreamWriter) -> None:
        self.is_silent = False
        self._proxy = proxy
        self._number = number
        self._writers = {CALLER: caller}

    async def run(self, reader: asyncio.StreamReader, target: tuple[str, int]) -> None:
        try:
            reader_2, writer_2 = await asyncio.open_connection(*target)
        except OSError:
            self.reset()
            return
        self._writers[TARGET] = writer_2
        pumps = [
            asyncio.create_task(self._pump(CALLER, reader, writer_2)),
            asyncio.create_task(self._pump(TARGET, reader_2, self._writers[CALLER])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self.is_silent:  # one end has gone: the other is not told
                await asyncio.wait(pumps)
            else:
                await asyncio.wait(pumps, timeout=1.0)
        finally:
            for pump in pumps:
                pump.cancel()
            for writer in self._writers.values():
                writer.close()

    async def _pump(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        proxy = self._proxy
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if proxy.delay_s:
                    await asyncio.sleep(proxy.delay_s)
                if self.is_silent:
                    continue
                proxy.passed[way] += len(data)
                cutter = proxy.cutter
                rest = cutter.last_words(self._number, way, data) if cutter else None
                if rest is not None:
                    proxy.cutter = None
                    await self._cut(way, rest, writer)
                    return
                writer.write(data)
                await writer.drain()
            if not self.is_silent and writer.can_write_eof():
                writer.write_eof()

    async def _cut(self, way: str, rest: bytes, writer: asyncio.StreamWriter) -> None:
        """Deliver the half message, then end: FIN to who reads it, RST to who sent it."""
        writer.write(rest)
        with suppress(OSError):
            await writer.drain()
        writer.close()
        _reset(self._writers[way])
        self._proxy.cut_done.set()

    def reset(self) -> None:
        """RST both ways."""
        for writer in self._writers.values():
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Proxies:
    """The thread that all proxies run on."""

    def __init__(self) -> None:
        self._proxies: list[FaultProxy] = []

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async def end() -> None:
            for proxy in self._proxies:
                proxy.stop()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks or [asyncio.create_task(asyncio.sleep(0))])

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def before(self, host: str, port: int) -> FaultProxy:
        """A proxy before an address."""
        proxy = FaultProxy((host, port), self._loop)
        asyncio.run_coroutine_threadsafe(proxy.start(), self._loop).result(10)
        self._proxies.append(proxy)
        return proxy
