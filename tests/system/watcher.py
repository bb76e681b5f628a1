"""Virtual boxes that watch a running head-end."""

import json
import subprocess
import sys
import threading
import time
from queue import Queue
from typing import Any

from demo.headend import HeadEnd


class Watcher:
    """`stbsim watch` on the live stream; its events come out of a queue, then stand in `seen`."""

    def __init__(self, head_end: HeadEnd) -> None:
        self.events: Queue[dict[str, Any]] = Queue()
        self.seen: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stbsim.main", "watch", f"udp://127.0.0.1:{head_end.ts_port}"]
            + ["--devices", str(head_end.home / "devices.json"), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        assert "listening" in self.process.stderr.readline()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def until(self, *words: str) -> str:
        """Wait for an event that mentions every word; the issue is up after a minute."""
        end = time.monotonic() + 60
        while True:
            event = self.events.get(timeout=max(0, end - time.monotonic()))
            line = json.dumps(event, ensure_ascii=False)
            self.seen.append(line)
            if all(word in line for word in words):
                return line

    def close(self) -> None:
        """End the watcher."""
        self.process.terminate()
        self.process.wait(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
