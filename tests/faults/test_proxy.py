"""The fault proxy does what it is asked to, and nothing else."""

import socket
from collections.abc import Iterator
from contextlib import closing
from threading import Condition, Thread

import pytest

from dvbwire.simulcrypt import MessageType, ParameterType
from dvbwire.simulcrypt.message import HEADER, Message
from tests.faults.proxy import CALLER, TARGET, AfterBytes, FaultProxy, Proxies
from tests.faults.simulcrypt_cuts import HalfMessage, InMessage


class Echo:
    """Answers each byte with itself, on as many connections as come."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._heard = b""
        self._news = Condition()
        self._thread = Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(100):
                    with self._news:
                        self._heard += data
                        self._news.notify_all()
                    connection.sendall(data)
            except ConnectionResetError:
                return

    def heard(self, data: bytes) -> bool:
        """Whether this, and no more, reaches it in all."""
        with self._news:
            return self._news.wait_for(lambda: self._heard == data, timeout=10)

    def close(self) -> None:
        """Answer nobody any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with closing(Echo()) as echo:
        yield echo


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with Proxies() as proxies:
        yield proxies.before("127.0.0.1", echo.port)


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def test_it_passes_bytes_both_ways_and_the_end_too(proxy: FaultProxy, echo: Echo) -> None:
    with connect(proxy) as caller:
        caller.sendall(b"abcde")
        assert caller.recv(5) == b"abcde"
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(5) == b""
    assert echo.heard(b"abcde")


@pytest.mark.parametrize("way", [CALLER, TARGET])
def test_it_cuts_after_so_many_bytes_of_one_way(proxy: FaultProxy, echo: Echo, way: str) -> None:
    """Who reads gets the bytes before the cut; the next connection is whole."""
    proxy.cut_at(AfterBytes(way, 3))
    with connect(proxy) as caller:
        caller.sendall(b"abcde")
        assert proxy.cut_done.wait(10)
        if way == TARGET:
            assert caller.recv(5) == b"abc"
            assert caller.recv(5) == b""
        else:
            with pytest.raises(ConnectionResetError):
                caller.recv(5)
    assert echo.heard(b"abc" if way == CALLER else b"abcde")
    with connect(proxy) as caller:
        caller.sendall(b"again")
        assert caller.recv(5) == b"again"


def test_silence_passes_nothing_and_says_nothing(proxy: FaultProxy) -> None:
    """Nobody is told: neither end, not after the silence either."""
    with connect(proxy) as before:
        before.sendall(b"1")
        assert before.recv(1) == b"1"
        proxy.go_silent()
        with connect(proxy) as during:
            for caller in (before, during):
                caller.settimeout(0.2)
                caller.sendall(b"2")
                with pytest.raises(TimeoutError):
                    caller.recv(1)
            proxy.restore()
            with connect(proxy) as after:
                after.sendall(b"3")
                assert after.recv(1) == b"3"
            for caller in (before, during):
                with pytest.raises(TimeoutError):
                    caller.recv(1)


def test_refusing_resets_what_is_there_and_what_comes(proxy: FaultProxy) -> None:
    with connect(proxy) as before:
        before.sendall(b"1")
        assert before.recv(1) == b"1"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            before.recv(1)
    # The reset may come before connect has returned.
    with pytest.raises(ConnectionResetError), connect(proxy) as during:
        during.recv(1)
    proxy.restore()
    with connect(proxy) as after:
        after.sendall(b"3")
        assert after.recv(1) == b"3"


STREAM = Message.build(
    3,
    MessageType.STREAM_TEST,
    (ParameterType.CLIENT_ID, 1),
    (ParameterType.DATA_CHANNEL_ID, 2),
    (ParameterType.DATA_STREAM_ID, 3),
).encode()
OTHER = Message.build(
    3, MessageType.CHANNEL_TEST, (ParameterType.CLIENT_ID, 1), (ParameterType.DATA_CHANNEL_ID, 2)
).encode()


@pytest.mark.parametrize("size", [1, 2, 7, len(OTHER), 1000])
def test_a_message_of_the_type_named_is_cut_in_its_middle(size: int) -> None:
    """However the stream is cut into chunks, header and half the body get through."""
    stream = OTHER + STREAM + OTHER
    cutter = InMessage(CALLER, MessageType.STREAM_TEST)
    heard = b""
    for at in range(0, len(stream), size):
        chunk = stream[at : at + size]
        assert cutter.last_words(1, TARGET, chunk) is None
        last = cutter.last_words(1, CALLER, chunk)
        if last is not None:
            heard += last
            break
        heard += chunk
    body = len(STREAM) - HEADER.size
    assert heard == stream[: len(OTHER) + HEADER.size + body // 2]


def test_half_a_message_is_said_after_one_that_passed() -> None:
    cutter = HalfMessage(CALLER, MessageType.CHANNEL_TEST, STREAM)
    assert cutter.last_words(1, CALLER, STREAM) is None
    assert cutter.last_words(1, CALLER, OTHER) == OTHER + STREAM[: len(STREAM) // 2]
