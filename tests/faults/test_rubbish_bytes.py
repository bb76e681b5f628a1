"""Proof 6: mutated SimulCrypt and EMM bytes; nothing but the documented errors, and no hang."""

import asyncio
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from demo.headend import free_ports
from dvbwire.simulcrypt import (
    ChannelOpened,
    DataType,
    EmmgConnection,
    StreamOpened,
)
from tests.faults.figures import record
from tests.faults.fuzz.mutators import mutated
from tests.faults.fuzz.seeds import CLIENT_ID, SEEDS
from tests.faults.processes import answers_ok
from tests.faults.scale import IS_FULL

RUNS = (
    {
        "emmg_connection": 100_000,
        "cycler_session": 100_000,
        "message": 150_000,
        "udp_provision": 120_000,
        "psi": 100_000,
        "box_sections": 150_000,
        "emm_decode": 150_000,
        "mux_connection": 50_000,
        "box_payloads": 40_000,
        "mux_session": 30_000,
        "stream": 30_000,
        "decode_command": 20_000,
    }
    if IS_FULL
    else {"every": 6_000}
)
SESSIONS = 3_000 if IS_FULL else 150
HANG_S = 30.0


@pytest.mark.timeout(3600)
def test_no_byte_string_does_harm(seed: int) -> None:
    """Coverage-guided: each input ends in time, within memory, and as documented."""
    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda each: _fuzz(*each, seed), RUNS.items()))
    record(
        "6-bytes",
        "mutated SimulCrypt, section and EMM bytes, coverage-guided",
        for_s=time.monotonic() - started,
        inputs=sum(each["number_of_executed_units"] for each in said),
        inputs_that_reached_new_code=sum(each["new_units_added"] for each in said),
        crashes=0,
        hangs=0,
        peak_mib=max(each["peak_rss_mb"] for each in said),
        seed=seed,
    )


def _fuzz(target: str, runs: int, seed: int) -> dict[str, int]:
    """Fuzz one target in a process of its own; returns libFuzzer's figures."""
    # It takes what the machine has left: proofs that watch the clock run beside it.
    command = ["nice", "-n", "10", sys.executable, "-m", "tests.faults.fuzz", target]
    done = subprocess.run(
        [*command, "--runs", str(runs), "--seed", str(seed)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, f"{target}:\n{done.stderr[-5000:]}"
    said = {name: int(n) for name, n in re.findall(r"stat::(\w+):\s+(\d+)", done.stderr)}
    assert said["number_of_executed_units"] >= runs
    return said


CONFIG = """\
[mux]
listen = "127.0.0.1:{mux}"
input = "filler"
outputs = ["udp://127.0.0.1:{ts}"]
monitor = "127.0.0.1:{monitor}"
"""


@pytest.mark.timeout(1800)
def test_the_multiplexer_survives_rubbish_on_its_socket(tmp_path: Path, seed: int) -> None:
    """A process of its own: every connection comes to an end, and a good EMMG is served after."""
    mux, ts, monitor = free_ports(3)
    config, log = tmp_path / "portcullis.toml", tmp_path / "mux.log"
    config.write_text(CONFIG.format(mux=mux, ts=ts, monitor=monitor), encoding="utf-8")
    command = [sys.executable, "-m", "portcullis.cli.main", "mux", "--config", str(config)]
    rng = Random(seed)
    seeds = SEEDS["mux_session"]()
    rubbish = [mutated("mux_session", rng.choice(seeds), rng) for _ in range(SESSIONS)]
    rubbish += [mutated("box_payloads", each, rng) for each in rubbish[: SESSIONS // 2]]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        end = time.monotonic() + 60
        while not answers_ok(monitor, "/livez"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)  # a monitoring port is asked, it does not tell
        started = time.monotonic()
        asyncio.run(_throw(mux, rubbish))
        elapsed_s = time.monotonic() - started
        asyncio.run(_good_session(mux))
        assert process.poll() is None
        resident_kib = int(_status(process.pid, "VmRSS"))
        said = [line for line in log.read_text().splitlines() if '"level": "error"' in line]
        assert said == []
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
    record(
        "6-bytes-mux-socket",
        "mutated sessions over TCP to the multiplexer",
        for_s=elapsed_s,
        inputs=len(rubbish),
        resident_mib=resident_kib / 1024,
        seed=seed,
    )


async def _throw(port: int, rubbish: list[bytes]) -> None:
    """Send each over a connection of its own, eight at once; each must come to an end."""
    waiting = iter(rubbish)

    async def work() -> None:
        for data in waiting:
            async with asyncio.timeout(HANG_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    for start in range(0, len(data), 1000):
                        writer.write(data[start : start + 1000])
                        await writer.drain()
                    writer.write_eof()
                    while await reader.read(65_536):
                        pass
                except OSError:
                    pass  # it hung up before it had heard all
                finally:
                    writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work())


async def _good_session(port: int) -> None:
    """Channel and stream, as ever."""
    emmg = EmmgConnection(3, CLIENT_ID, 1, 1)
    async with asyncio.timeout(HANG_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        emmg.open_channel(0.0)
        opened = False
        while not opened:
            writer.write(emmg.data_to_send())
            for event in emmg.receive(await reader.read(65_536), 0.0):
                if isinstance(event, ChannelOpened):
                    emmg.open_stream(1, 1, DataType.EMM, 0.0)
                opened = isinstance(event, StreamOpened)
        writer.close()


def _status(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return re.findall(rf"{name}:\s*(\d+)", text)[0]
