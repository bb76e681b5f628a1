"""The calling end of the encryptor's RPC, for threads (a channel may be shared by many)."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Annotated, Any, Self

import grpc
import msgspec

from portcullis.runtime.config import ConfigError
from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.encryptor_pb2_grpc import EncryptorStub
from portcullis.runtime.tls import TlsConfig, TlsFiles

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""What either end takes: a thousand items with a hundred entitlements each are 4 MB."""

Addresses = str | Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
"""Where encryptors listen, "unix:PATH" or "host:port": one, or several of which one is enough."""

_CHECK_S = 0.4
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # An encryptor that was started again is to be found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Also the time that a try to connect may take, 20 s by default: one begun into silence ends
    # in time for the next, when the encryptor is back, to have orders on air within 5 s.
    ("grpc.min_reconnect_backoff_ms", 1500),
    # One that hangs, or whose host has gone, is given up before the deadline of a call.
    ("grpc.keepalive_time_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.enable_http_proxy", 0),
]
_DECLINED = {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    # Not of this release, or not to be talked to by us: no call would fare better.
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}
_WAITED_OUT = _DECLINED | {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}


class EncryptorError(PortcullisError):
    """The encryptor refused the call as a whole: asking again gives the same answer."""


class EncryptorUnavailableError(EncryptorError):
    """The encryptor is away, busy or too slow: nothing was done that may not be asked again."""


class EncryptorDeclinesError(EncryptorUnavailableError):
    """It has not looked at the call: too many wait, or this one is not for it or not for us."""


def each_address(addresses: Addresses) -> tuple[str, ...]:
    """The addresses one by one."""
    return (addresses,) if isinstance(addresses, str) else addresses


def check_addresses(addresses: Addresses, tls: TlsConfig | None, section: str) -> None:
    """Raise ConfigError for an address over TCP without a `tls` table."""
    for address in each_address(addresses):
        if not address.startswith("unix:") and tls is None:
            raise ConfigError(f"{section}.encryptor: {address}: TCP needs [{section}.tls]")


class EncryptorClient(AbstractContextManager["EncryptorClient"]):
    """Calls with a deadline each, to the first of `addresses` until it is away, then to the next.

    Every call raises EncryptorUnavailableError when it may be tried again later, and
    EncryptorError when the call itself is at fault.
    """

    def __init__(
        self, addresses: Addresses, tls: TlsFiles | None = None, *, deadline_s: float = 10.0
    ) -> None:
        """Make channels; `tls` is for those over TCP, and is read anew when its files change."""
        self.addresses = each_address(addresses)
        self.address = ", ".join(self.addresses)
        self._deadline_s = deadline_s
        self._tls = tls
        self._channels: list[grpc.Channel] = []
        self._former: list[grpc.Channel] = []
        self._stubs: list[EncryptorStub] = []
        self._opening = threading.Lock()
        self._preferred = 0
        self._is_closed = False
        self._open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Let go of the channels; calls under way are cancelled."""
        self._is_closed = True
        for channel in self._channels + self._former:
            channel.close()

    def _open(self) -> None:
        """Open channels with the certificates as they are now.

        Calls under way end on those before, which are closed when certificates change again.
        """
        for channel in self._former:
            channel.close()
        self._former = self._channels
        self._channels = [self._channel(address) for address in self.addresses]
        self._stubs = [EncryptorStub(one) for one in self._channels]  # type: ignore[no-untyped-call]  # generated

    def _channel(self, address: str) -> grpc.Channel:
        if address.startswith("unix:"):
            return grpc.insecure_channel(address, options=_OPTIONS)
        assert self._tls is not None, address  # noqa: S101 (see `check_addresses`)
        pem = self._tls.pem
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
        return grpc.secure_channel(address, credentials, options=_OPTIONS)

    def _follow_certificates(self) -> None:
        if self._tls is not None and not self._is_closed:
            with self._opening:
                if self._tls.changed():
                    self._open()

    def check(self) -> str | None:
        """Readiness: one encryptor is enough."""
        away = self._away()
        return f"away: {', '.join(away)}" if len(away) == len(self.addresses) else None

    def notice(self) -> str | None:
        """Those of several that are away, while one is not."""
        away = self._away() if len(self.addresses) > 1 else []
        return f"away: {', '.join(away)}" if 0 < len(away) < len(self.addresses) else None

    def _away(self) -> list[str]:
        """The addresses where nobody answers in time."""
        if self._is_closed:
            return list(self.addresses)
        self._follow_certificates()
        asked = [stub.Info.future(pb.InfoRequest(), timeout=_CHECK_S) for stub in self._stubs]
        return [
            address
            for address, answer in zip(self.addresses, asked, strict=True)
            if answer.exception() is not None
        ]

    def seal(
        self,
        ca_system_id: int,
        product_keys: Sequence[pb.SealedKey],
        items: Sequence[pb.SealItem],
    ) -> pb.SealReply:
        """Seal EMMs; the reply has as many items as were asked for, in order."""
        request = pb.SealRequest(ca_system_id=ca_system_id, product_keys=product_keys, items=items)
        reply: pb.SealReply = self._call("Seal", request)
        if len(reply.items) != len(items):
            raise EncryptorError(f"{len(items)} EMMs asked for, {len(reply.items)} answered")
        return reply

    def seal_states(self, request: pb.SealStatesRequest) -> pb.SealStatesReply:
        """Seal states; each place of the reply has sections, or a refusal."""
        reply: pb.SealStatesReply = self._call("SealStates", request)
        refused = {place for place, parts in enumerate(reply.parts) if not parts}
        if (
            len(reply.parts) != len(request.addresses)
            or sum(reply.parts) != len(reply.sections)
            or {refusal.place for refusal in reply.refusals} != refused
        ):
            raise EncryptorError(
                f"{len(request.addresses)} states asked for, {len(reply.parts)} answered with"
                f" {len(reply.sections)} sections and {len(reply.refusals)} refusals"
            )
        return reply

    def make_chain(self, product_id: int, first_epoch: int, last_epoch: int) -> pb.SealedKey:
        """Make a product key chain of these epochs (at most 128), sealed."""
        request = pb.MakeChainRequest(
            product_id=product_id, first_epoch=first_epoch, last_epoch=last_epoch
        )
        reply: pb.SealedKey = self._call("MakeChain", request)
        return reply

    def import_vendor_file(
        self, shares: Iterable[bytes], skip_lines: int
    ) -> Iterator[pb.ImportedKeys]:
        """Have a vendor key file read and its keys sealed; batches come as they are done.

        Only the encryptor asked first is asked: what it had of the file is lost with it.
        """
        self._follow_certificates()
        place = self._preferred

        def requests() -> Iterator[pb.VendorFile]:
            yield pb.VendorFile(skip_lines=skip_lines)
            for share in shares:
                yield pb.VendorFile(data=share)

        try:
            # No deadline: it takes as long as the file is, and as its reader takes.
            yield from self._stubs[place].ImportDeviceKeys(requests())
        except grpc.RpcError as error:
            raise self._error(place, error) from error

    def same_keys(self, pairs: Iterable[tuple[pb.SealedKey, pb.SealedKey]]) -> list[str]:
        """Why each (held, offered) pair is not the same device key twice; empty where it is."""
        request = pb.SameKeysRequest(
            pairs=[pb.SameKeysRequest.Pair(held=held, offered=offered) for held, offered in pairs]
        )
        reply: pb.SameKeysReply = self._call("SameKeys", request)
        return list(reply.errors)

    def rewrap(self, keys: Iterable[pb.SealedKey]) -> list[pb.Rewrapped]:
        """Have keys sealed anew under the current master; each answered on its own."""
        reply: pb.RewrapReply = self._call("Rewrap", pb.RewrapRequest(keys=keys))
        return list(reply.keys)

    def verify(self, keys: Sequence[pb.SealedKey]) -> list[str]:
        """Why each key does not open under what its row says; empty where it does."""
        reply: pb.VerifyReply = self._call("Verify", pb.VerifyRequest(keys=keys))
        return list(reply.errors)

    def change_master(
        self, change: pb.ChangeMasterRequest.Change, master_id: str
    ) -> Sequence[pb.Master]:
        """Make, use, retire or recall a master; returns those at hand, the current one first."""
        request = pb.ChangeMasterRequest(change=change, master_id=master_id)
        reply: pb.InfoReply = self._call("ChangeMaster", request)
        return reply.masters

    def info(self) -> pb.InfoReply:
        """The masters at hand, and the encryptor's clock."""
        reply: pb.InfoReply = self._call("Info", pb.InfoRequest())
        return reply

    def _call(self, call: str, request: Any) -> Any:  # noqa: ANN401 (generated)
        if (size := request.ByteSize()) > MAX_MESSAGE_BYTES:
            raise EncryptorError(f"{call}: {size} bytes in one call, {MAX_MESSAGE_BYTES} at most")
        self._follow_certificates()
        count = len(self.addresses)
        kind = EncryptorUnavailableError
        reasons = []
        for place in [(self._preferred + step) % count for step in range(count)]:
            if self._is_closed:
                raise EncryptorUnavailableError("the client has been closed")
            try:
                return getattr(self._stubs[place], call)(request, timeout=self._deadline_s)
            except grpc.RpcError as error:
                reason = self._error(place, error)
                if not isinstance(reason, EncryptorUnavailableError):
                    raise reason from error
                kind = (
                    EncryptorDeclinesError if isinstance(reason, EncryptorDeclinesError) else kind
                )
                reasons.append(str(reason))
                if self._preferred == place:
                    self._preferred = (place + 1) % count
        raise kind("; ".join(reasons))

    def _error(self, place: int, error: Any) -> EncryptorError:  # noqa: ANN401 (a grpc.Call too)
        """What an encryptor's refusal or silence is to the caller."""
        code, details = error.code(), error.details()
        kind = EncryptorUnavailableError if code in _WAITED_OUT else EncryptorError
        if code in _DECLINED:
            kind = EncryptorDeclinesError
        return kind(f"encryptor {self.addresses[place]}: {code.name.lower()}: {details}")
