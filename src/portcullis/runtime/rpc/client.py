"""The calling end of the encryptor's RPC, for threads (a channel may be shared by many)."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import grpc

from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.encryptor_pb2_grpc import EncryptorStub

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""What either end takes: a thousand items with a hundred entitlements each are 4 MB."""

_WAITED_OUT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}


class EncryptorError(PortcullisError):
    """The encryptor refused the call as a whole: asking again gives the same answer."""


class EncryptorUnavailableError(EncryptorError):
    """The encryptor is away, busy or too slow: nothing was done that may not be asked again."""


class EncryptorClient(AbstractContextManager["EncryptorClient"]):
    """Calls with a deadline each. `address`: "unix:PATH" or "host:port".

    Every call raises EncryptorUnavailableError when it may be tried again later, and
    EncryptorError when the call itself is at fault.
    """

    def __init__(self, address: str, deadline_s: float = 10.0) -> None:
        self.address = address
        self._deadline_s = deadline_s
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # An encryptor that was started again is to be found at once.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._stub = EncryptorStub(self._channel)  # type: ignore[no-untyped-call]  # generated

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
        """Let go of the channel; calls under way are cancelled."""
        self._channel.close()

    def seal(
        self,
        ca_system_id: int,
        product_keys: Sequence[pb.SealedKey],
        items: Sequence[pb.SealItem],
    ) -> pb.SealReply:
        """Seal EMMs; the reply has as many items as were asked for, in order."""
        request = pb.SealRequest(ca_system_id=ca_system_id, product_keys=product_keys, items=items)
        reply: pb.SealReply = self._call(self._stub.Seal, request)
        if len(reply.items) != len(items):
            raise EncryptorError(f"{len(items)} EMMs asked for, {len(reply.items)} answered")
        return reply

    def make_chain(self, product_id: int, first_epoch: int, last_epoch: int) -> pb.SealedKey:
        """Make a product key chain of these epochs (at most 128), sealed."""
        request = pb.MakeChainRequest(
            product_id=product_id, first_epoch=first_epoch, last_epoch=last_epoch
        )
        reply: pb.SealedKey = self._call(self._stub.MakeChain, request)
        return reply

    def import_device_keys(self, keys: Iterable[tuple[int, bytes]]) -> list[pb.SealedKey]:
        """Have (device_id, key in clear) pairs sealed, in order."""
        request = pb.ImportRequest(
            keys=[pb.DeviceKey(device_id=device_id, key=key) for device_id, key in keys]
        )
        reply: pb.ImportReply = self._call(self._stub.ImportDeviceKeys, request)
        return list(reply.keys)

    def rewrap(self, keys: Iterable[pb.SealedKey]) -> list[pb.Rewrapped]:
        """Have keys sealed anew under the current master; each answered on its own."""
        reply: pb.RewrapReply = self._call(self._stub.Rewrap, pb.RewrapRequest(keys=keys))
        return list(reply.keys)

    def verify(self, keys: Sequence[pb.SealedKey]) -> list[str]:
        """Why each key does not open under what its row says; empty where it does."""
        reply: pb.VerifyReply = self._call(self._stub.Verify, pb.VerifyRequest(keys=keys))
        return list(reply.errors)

    def change_master(
        self, change: pb.ChangeMasterRequest.Change, master_id: str
    ) -> Sequence[pb.Master]:
        """Make, use, retire or recall a master; returns those at hand, the current one first."""
        request = pb.ChangeMasterRequest(change=change, master_id=master_id)
        reply: pb.InfoReply = self._call(self._stub.ChangeMaster, request)
        return reply.masters

    def info(self) -> pb.InfoReply:
        """The masters at hand, and the encryptor's clock."""
        reply: pb.InfoReply = self._call(self._stub.Info, pb.InfoRequest())
        return reply

    def _call(self, method: Callable[..., Any], request: Any) -> Any:  # noqa: ANN401 (generated)
        try:
            return method(request, timeout=self._deadline_s)
        except grpc.RpcError as error:
            # The error of a call is a grpc.Call too: it has a code and details.
            code, details = error.code(), error.details()
            kind = EncryptorUnavailableError if code in _WAITED_OUT else EncryptorError
            raise kind(f"encryptor {self.address}: {code.name.lower()}: {details}") from error
