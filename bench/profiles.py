"""Where each service spends its time at work: sampled from outside by py-spy."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.air import population, saturated
from bench.generate import rekey_s
from bench.headend import head_end
from bench.mariadb import server
from bench.population import orderable, states
from bench.processes import folder
from bench.result import RESULTS
from bench.sms import gateway, wrk

PATH = RESULTS / "profiles.json"
Profile = Sequence[tuple[str, float]]
"""Functions (with their file) and their own share of the samples, %; the largest first."""

_MOST = 8
_CLIENTS = 64


def sampled(pid: int, seconds: int) -> Profile:
    """Sample a process that is at work, threads that wait left out."""
    with folder() as home:
        raw = home / "raw"
        spy = [str(Path(sys.executable).with_name("py-spy")), "record", "--nonblocking"]
        how = ["--function", "--format", "raw", "--duration", str(seconds)]
        subprocess.run(
            [*spy, *how, "--pid", str(pid), "--output", str(raw)], check=True, capture_output=True
        )
        return hottest(raw.read_text(encoding="utf-8"))


def hottest(stacks: str) -> Profile:
    """The functions with the most samples of their own; lines are "outer;…;inner COUNT"."""
    own: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        own[frames.rpartition(";")[2] or "(no Python frame)"] += int(count)
    total = own.total()
    return [(name, round(100 * count / total, 1)) for name, count in own.most_common(_MOST)]


def _rekey(boxes: int, seconds: int) -> Mapping[str, Profile]:
    with server() as database, head_end(database, boxes) as head:
        states(database, boxes, "3")
        with head.emmgs(1) as (emmg,):
            rekey_s(head)
            found = {}
            for name, pid in (("EMMG, a re-key", emmg), ("encryptor, a re-key", head.encryptor)):
                work = threading.Thread(target=rekey_s, args=(head,))
                work.start()
                found[name] = sampled(pid, seconds)
                work.join()
    return found


def _orders(boxes: int, seconds: int) -> Profile:
    with server() as database, ExitStack() as stack:
        orderable(database, boxes)
        one = stack.enter_context(gateway(database))
        load = threading.Thread(target=wrk, args=(one.url, boxes, _CLIENTS, seconds + 2))
        load.start()
        found = sampled(one.pid, seconds)
        load.join()
    return found


def _airing(boxes: int, seconds: int) -> Profile:
    with server() as database:
        population(database, boxes)
        with saturated(database, "tcp") as airing:
            return sampled(airing.pid, seconds)


def run(boxes: int = 60_000, seconds: int = 6) -> None:
    """Sample all, and save what was found."""
    found = {
        **_rekey(boxes, seconds),
        "gateway, 64 clients": _orders(boxes, seconds),
        "cycler, 65,535 kbit/s over TCP": _airing(boxes, seconds),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def lines() -> list[str]:
    """The profiles as a part of the page; none where they have not been taken."""
    if not PATH.exists():
        return []
    page = ["", "## Where the time goes", ""]
    page += ["Sampled by py-spy from outside; the function's own share of the samples, C included."]
    for who, profile in json.loads(PATH.read_text(encoding="utf-8")).items():
        page += ["", f"**{who}**: " + ", ".join(f"`{name}` {share} %" for name, share in profile)]
    return page
