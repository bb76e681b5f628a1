"""Virtual boxes at the end of the stream, and what they hold at any moment."""

import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from dvbwire.ts import PacketSync
from stbsim.box import Box
from stbsim.devices import read_devices
from stbsim.output import report
from stbsim.receiver import Receiver
from stbsim.sources import UdpSource, open_source

_T = TypeVar("_T")


class Boxes:
    """Boxes that see the stream and their own keys, nothing else; on a thread of their own."""

    def __init__(self, url: str, devices: Path) -> None:
        self._receiver = Receiver(read_devices(devices))
        source = open_source(url)
        assert isinstance(source, UdpSource)
        self._source = source
        self._lock = threading.Lock()
        self._heard = threading.Condition(self._lock)
        self._is_ending = False
        self._thread = threading.Thread(target=self._watch, name="boxes", daemon=True)

    @property
    def port(self) -> int:
        """The UDP port they listen on."""
        return int(self._source.name.rpartition(":")[2])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_ending = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))  # wakes the thread
        self._thread.join(10)

    def hold(self, as_of: int) -> dict[str, Any]:
        """What each holds, in the form of `stbsim report`'s boxes; `as_of` in Unix seconds."""
        with self._lock:
            boxes = report(self._receiver, as_of)["boxes"]
        assert isinstance(boxes, dict)
        return boxes

    def look(self, at: Callable[[Receiver], _T]) -> _T:
        """What `at` finds in the receiver, while nothing moves in it."""
        with self._lock:
            return at(self._receiver)

    def deafen(self, device_ids: Iterable[str]) -> list[Box]:
        """Take boxes off the air: they hear nothing from now on, and keep what they hold."""
        with self._lock:
            return [self._receiver.boxes.pop(int(device_id)) for device_id in device_ids]

    def repeats(self) -> int:
        """How many EMMs have come that moved no box: the carousel turns."""
        with self._lock:
            return self._receiver.ignored.total()

    def wait(self, says: Callable[[Receiver], bool], timeout_s: float) -> bool:
        """Wait until `says` is true of the receiver; looks whenever one of them has moved."""
        with self._heard:
            return self._heard.wait_for(lambda: says(self._receiver), timeout_s)

    def _watch(self) -> None:
        sync = PacketSync()
        for chunk in self._source:
            if self._is_ending:
                return
            with self._heard:
                moved = False
                for packet in sync.feed(chunk):
                    moved = bool(self._receiver.push(packet)) or moved
                if moved:
                    self._heard.notify_all()
