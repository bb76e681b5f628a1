"""SimulCrypt over TLS: a cycler's link and the multiplexer, both with certificates of one CA."""

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from dvbwire.ts import packetize_section
from portcullis.cli.main import cli
from portcullis.cycler.config import CyclerConfig, StreamConfig
from portcullis.cycler.link import Link, LinkState
from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.runtime.tls import TlsConfig, TlsFiles
from tests.conftest import free_port


def issue(home: Path, name: str, *words: str) -> None:
    """`portcullis ca init` where there is none, and `ca issue`."""
    directory = ["--dir", str(home)]
    CliRunner().invoke(cli, ["ca", "init", *directory])
    assert CliRunner().invoke(cli, ["ca", "issue", name, *words, *directory]).exit_code == 0


def table(home: Path, name: str) -> dict[str, str]:
    """A `tls` table."""
    return {
        "ca_file": f"{home}/ca.pem",
        "cert_file": f"{home}/{name}.pem",
        "key_file": f"{home}/{name}.key",
    }


@contextmanager
def mux(home: Path, tls: dict[str, str]) -> Iterator[int]:
    """A multiplexer as a process; its port for EMMGs."""
    port, monitor = free_port(), free_port()
    config = home / "mux.toml"
    config.write_text(
        f'[mux]\nlisten = "127.0.0.1:{port}"\nmonitor = "127.0.0.1:{monitor}"\noutputs = []\n'
        "[mux.tls]\n" + "".join(f'{key} = "{value}"\n' for key, value in tls.items())
    )
    command = [sys.executable, "-m", "portcullis.cli.main", "mux", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not answers(monitor):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)  # a starting process has no event to wait on
        yield port
    finally:
        process.terminate()
        process.wait(20)


def answers(monitor: int) -> bool:
    """Whether it is up."""
    try:
        return httpx.get(f"http://127.0.0.1:{monitor}/livez").is_success
    except httpx.TransportError:
        return False


async def open_stream(port: int, tls: dict[str, str] | None, wait_s: float = 30.0) -> Link:
    """A link that wants a stream; returned once it is open, or the time is over."""
    changed = asyncio.Event()
    config = StreamConfig(mux=f"127.0.0.1:{port}", tls=None if tls is None else TlsConfig(**tls))
    link = Link(config, changed.set)
    task = asyncio.create_task(link.run())
    link.want(wanted=True)

    async def reaches(state: LinkState) -> None:
        while link.state is not state:
            changed.clear()
            await changed.wait()

    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await reaches(LinkState.STREAM_OPEN)
            link.send([[packetize_section(bytes((0x82, 0x70, 1, 0)), 0x1FFF)[0]]])
            await link.close()
            await reaches(LinkState.DOWN)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return link


@pytest.mark.parametrize("peer", ["ours", "in clear", "of another CA"])
def test_only_an_emmg_with_a_certificate_of_the_ca_opens_a_stream(
    peer: str, tmp_path: Path
) -> None:
    """Others are not talked to at all, in clear or by a CA that is not ours."""
    home, other = tmp_path / "tls", tmp_path / "other"
    issue(home, "mux", "--host", "127.0.0.1")
    issue(home, "cycler")
    issue(other, "cycler")
    foreign = {**table(other, "cycler"), "ca_file": f"{home}/ca.pem"}
    tls = {"ours": table(home, "cycler"), "in clear": None, "of another CA": foreign}[peer]
    with mux(tmp_path, table(home, "mux")) as port:
        link = asyncio.run(open_stream(port, tls, 30.0 if peer == "ours" else 3.0))
    opened = link.allocated_kbit_s > 0
    assert opened == (peer == "ours")


def test_a_multiplexer_that_is_not_the_one_meant_is_not_talked_to(tmp_path: Path) -> None:
    """Its certificate is for another host; the reason is in the link's counts."""
    issue(tmp_path, "mux", "--host", "10.1.2.3")
    issue(tmp_path, "cycler")
    with mux(tmp_path, table(tmp_path, "mux")) as port:
        link = asyncio.run(open_stream(port, table(tmp_path, "cycler"), 3.0))
    assert link.counts["connect_failed"]
    assert link.state is LinkState.DOWN


def test_the_multiplexer_shows_its_new_certificate_without_a_restart(tmp_path: Path) -> None:
    """To whoever connects from then on."""
    issue(tmp_path, "mux", "--host", "127.0.0.1")
    issue(tmp_path, "cycler")

    def shown(port: int) -> bytes | None:
        files = TlsFiles(TlsConfig(**table(tmp_path, "cycler")), "tls")
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            files.client_context().wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            return wrapped.getpeercert(binary_form=True)

    with mux(tmp_path, table(tmp_path, "mux")) as port:
        before = shown(port)
        issue(tmp_path, "mux", "--host", "127.0.0.1")
        new = ssl.PEM_cert_to_DER_cert((tmp_path / "mux.pem").read_text())
        assert before != new
        end = time.monotonic() + 60
        while shown(port) != new:
            assert time.monotonic() < end
            time.sleep(0.1)  # it looks once a second


def test_udp_in_clear_is_refused_beside_tls() -> None:
    """By the configuration."""
    stream = {"provision": "udp", "tls": table(Path("var"), "cycler")}
    with pytest.raises(ConfigError, match="in clear"):
        CyclerConfig.of(ConfigSource(None, "", {"cycler": {"stream": [stream]}}))
