"""Wiring of `portcullis mux`: sockets, clock and signals around the multiplexer."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import REGISTRY

from portcullis.mux.config import FILLER, FILLER_KBIT_S, MuxConfig
from portcullis.mux.inputs import FileInput, FillerInput, PacedInput, UdpInput, udp_receiver
from portcullis.mux.inserter import Inserter
from portcullis.mux.metrics import MuxMetrics
from portcullis.mux.multiplexer import Multiplexer
from portcullis.mux.outputs import open_output
from portcullis.mux.pacing import Pacer
from portcullis.mux.server import EmmgDoor, EmmgSession, UdpProvisions
from portcullis.mux.streams import StreamTable
from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.runtime.logging import get_logger
from portcullis.runtime.service import Service, bind, split_address
from portcullis.runtime.tls import TlsFiles

_TICK_S = 0.005
_MEASURE_S = 5.0
_SILENCE_S = 2.0
_CAT_VERSIONS = 32
_CERTIFICATES_S = 1.0

log = get_logger("portcullis.mux")


async def main(source: ConfigSource) -> None:
    """Multiplex until told to stop; raises PortcullisError."""
    config = MuxConfig.of(source)
    paced = _paced_input(config)
    async with AsyncExitStack() as stack:
        if paced is not None:
            stack.enter_context(closing(paced))
        outputs = [stack.enter_context(closing(open_output(url))) for url in config.outputs]
        table = StreamTable(config.emm_pid, config.max_streams, config.max_bandwidth_kbit_s)
        # A receiver that stays on must not take the CAT of this start for that of the last.
        inserter = Inserter(first_cat_version=int(time.time()) % _CAT_VERSIONS)
        multiplexer = Multiplexer(inserter, table, outputs, lambda: datetime.now(UTC))
        door = EmmgDoor(table, multiplexer.provide, multiplexer.announce)
        await stack.enter_async_context(_listening(door, config))
        service = Service("mux", config.monitor)
        now = asyncio.get_running_loop().time
        if paced is None:
            udp = UdpInput(lambda packets: multiplexer.pass_on(packets, now()), now)
            await stack.enter_async_context(_receiving(udp, config.input))
            service.checks["input"] = lambda: _silence(now() - udp.heard_at)
            REGISTRY.register(MuxMetrics(multiplexer, door, lambda: 0))
            async with service:
                while await service.sleep(_MEASURE_S):
                    multiplexer.measure(now())
        else:
            pacer = Pacer(paced.bits_per_s, now())
            REGISTRY.register(MuxMetrics(multiplexer, door, lambda: pacer.skipped))
            async with service:
                await _play(service, multiplexer, paced, pacer)
        for session in list(door.sessions):
            session.close("stopping")


async def _play(
    service: Service, multiplexer: Multiplexer, paced: PacedInput, pacer: Pacer
) -> None:
    """Send what is due, tick by tick, until told to stop."""
    now = asyncio.get_running_loop().time
    measured_at = now()
    while await service.sleep(_TICK_S):
        time_s = pacer.stream_time_s
        multiplexer.pass_on(paced.take(pacer.due(now())), time_s)
        if now() - measured_at >= _MEASURE_S:
            measured_at = now()
            multiplexer.measure(measured_at)


def _paced_input(config: MuxConfig) -> PacedInput | None:
    """Open a filler or a file; None for UDP."""
    bits_per_s = config.bitrate_kbit_s and config.bitrate_kbit_s * 1000.0
    if config.input == FILLER:
        return FillerInput(bits_per_s or FILLER_KBIT_S * 1000.0)
    if config.input.startswith("file:"):
        path = Path(config.input.removeprefix("file:").removeprefix("//"))
        return FileInput(path, bits_per_s)
    if config.input.startswith("udp:"):
        return None
    raise ConfigError(f"mux.input: expected filler, file:PATH or udp://host:port: {config.input}")


def _silence(seconds: float) -> str | None:
    return None if seconds < _SILENCE_S else f"no packets from the input for {seconds:.0f} s"


@asynccontextmanager
async def _listening(door: EmmgDoor, config: MuxConfig) -> AsyncIterator[None]:
    """Hear EMMGs on TCP, and on UDP under the same number unless the link is to be TLS."""
    loop = asyncio.get_running_loop()
    listener = bind(*split_address(config.listen, "mux.listen"), "mux.listen")
    async with AsyncExitStack() as stack:
        context = None
        if config.tls is not None:
            files = TlsFiles(config.tls, "mux.tls")
            context = files.server_context()
            following = asyncio.create_task(_follow_certificates(files, context))
            stack.callback(following.cancel)
        else:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: UdpProvisions(door), local_addr=listener.getsockname()[:2]
            )
            stack.callback(transport.close)
        server = await loop.create_server(lambda: EmmgSession(door), sock=listener, ssl=context)
        stack.callback(server.close)
        yield


async def _follow_certificates(files: TlsFiles, context: ssl.SSLContext) -> None:
    """Show new certificates to those who connect from then on."""
    while True:
        await asyncio.sleep(_CERTIFICATES_S)
        try:
            files.refresh(context)
        except OSError as error:
            log.warning("certificates not taken", reason=str(error))


@asynccontextmanager
async def _receiving(udp: UdpInput, url: str) -> AsyncIterator[None]:
    """Hear the input stream."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port is None:
        raise ConfigError(f"mux.input: expected udp://host:port: {url}")
    receiver = udp_receiver(parts.hostname, parts.port)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: udp, sock=receiver)
    try:
        yield
    finally:
        transport.close()
