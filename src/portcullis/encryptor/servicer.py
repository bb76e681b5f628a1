"""The gRPC end: bounds, deadlines and error codes around sealer and custodian."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

import grpc

from portcullis.encryptor import metrics
from portcullis.encryptor.custodian import (
    KeyRequestError,
    change_master,
    compare_keys,
    describe_masters,
    make_chain,
    rewrap,
    verify,
)
from portcullis.encryptor.importer import Importer, ImportFileError
from portcullis.encryptor.permits import AllowConfig, peer_names
from portcullis.encryptor.sealer import Sealer
from portcullis.encryptor.states import ColumnsError
from portcullis.keys import (
    CustodyAwayError,
    ImportKey,
    KeyCustodyError,
    KeyFileError,
    KeyNotOpenedError,
    MasterStore,
)
from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.encryptor_pb2_grpc import EncryptorServicer

MAX_WAITING_CALLS = 32
"""Back-pressure: calls beyond are told RESOURCE_EXHAUSTED at once and come again."""

MAX_CA_SYSTEM_ID = 0xFFFF
SERVICE: str = pb.DESCRIPTOR.services_by_name["Encryptor"].full_name

Context = grpc.aio.ServicerContext[Any, Any]
_T = TypeVar("_T")

log = get_logger("portcullis.encryptor")


class Servicer(EncryptorServicer):
    """Answers calls; the work runs on `executor`, so that the loop stays free."""

    def __init__(
        self,
        masters: MasterStore,
        import_key: ImportKey,
        sealer: Sealer,
        executor: Executor,
        *,
        max_batch: int,
        allow: AllowConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._masters = masters
        self._custody = import_key.custody
        self._import_key = import_key
        self._is_importing = False
        self._sealer = sealer
        self._executor = executor
        self._max_batch = max_batch
        self._allow = allow
        self._clock = clock
        self._waiting = 0

    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.SealReply:  # noqa: N802 (gRPC spells calls so)
        """Seal EMMs, each answered on its own."""
        await self._admit("Seal", context)
        await self._bound_seal(len(request.items), request.ca_system_id, context)
        reply, refused = await self._work("seal", context, lambda: self._sealer.seal(request))
        metrics.SEALED.inc(len(reply.items) - len(refused))
        for place in refused:
            asked, item = request.items[place], reply.items[place]
            _tell_unsealed(asked.address, item.code, item.error)
        reply.clock_us = self._clock_us()
        return reply

    async def SealStates(  # noqa: N802 (gRPC spells calls so)
        self, request: pb.SealStatesRequest, context: Context
    ) -> pb.SealStatesReply:
        """Seal states that come in columns, each answered on its own."""
        await self._admit("SealStates", context)
        await self._bound_seal(len(request.addresses), request.ca_system_id, context)
        reply = await self._work("seal", context, lambda: self._sealer.seal_states(request))
        metrics.SEALED.inc(len(reply.parts) - len(reply.refusals))
        for refusal in reply.refusals:
            _tell_unsealed(request.addresses[refusal.place], refusal.code, refusal.error)
        reply.clock_us = self._clock_us()
        return reply

    async def MakeChain(self, request: pb.MakeChainRequest, context: Context) -> pb.SealedKey:  # noqa: N802 (gRPC spells calls so)
        """Make a product key chain, sealed."""
        await self._admit("MakeChain", context)
        return await self._work("make_chain", context, lambda: make_chain(self._custody, request))

    async def ImportDeviceKeys(  # noqa: N802 (gRPC spells calls so)
        self, shares: AsyncIterator[pb.VendorFile], context: Context
    ) -> None:
        """Read a vendor key file and give its keys back sealed, line by line; one at a time."""
        await self._admit("ImportDeviceKeys", context)
        if self._is_importing:
            await self._reject(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "another import runs")

        async def read() -> pb.VendorFile | None:
            return await anext(shares, None)

        importer = Importer(self._custody, self._import_key, self._executor, read, context.write)
        self._is_importing = True
        try:
            await importer.run()
        except ImportFileError as error:
            await self._reject(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except KeyCustodyError as error:
            await self._reject(context, _status(error), str(error))
        finally:
            self._is_importing = False

    async def SameKeys(  # noqa: N802 (gRPC spells calls so)
        self, request: pb.SameKeysRequest, context: Context
    ) -> pb.SameKeysReply:
        """Say of each pair whether it is one key; which key is never said."""
        await self._admit("SameKeys", context)
        await self._bound(len(request.pairs), context)
        answers = await self._work(
            "same_keys",
            context,
            lambda: [compare_keys(self._custody, pair) for pair in request.pairs],
        )
        for pair, (code, reason) in zip(request.pairs, answers, strict=True):
            if code:
                self._tell_refused("same_keys", pair.held.owner, code, reason)
        return pb.SameKeysReply(errors=[reason for _, reason in answers])

    async def Rewrap(self, request: pb.RewrapRequest, context: Context) -> pb.RewrapReply:  # noqa: N802 (gRPC spells calls so)
        """Seal keys anew under the current master, each answered on its own."""
        await self._admit("Rewrap", context)
        await self._bound(len(request.keys), context)
        keys = await self._work(
            "rewrap", context, lambda: [rewrap(self._custody, key) for key in request.keys]
        )
        for asked, answer in zip(request.keys, keys, strict=True):
            if answer.error:
                self._tell_refused("rewrap", asked.owner, "not_sealed_here", answer.error)
        return pb.RewrapReply(keys=keys)

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyReply:  # noqa: N802 (gRPC spells calls so)
        """Say which keys open, and why others do not."""
        await self._admit("Verify", context)
        await self._bound(len(request.keys), context)
        errors = await self._work(
            "verify", context, lambda: [verify(self._custody, key) for key in request.keys]
        )
        for key, error in zip(request.keys, errors, strict=True):
            if error:
                self._tell_refused("verify", key.owner, "not_sealed_here", error)
        return pb.VerifyReply(errors=errors)

    async def ChangeMaster(  # noqa: N802 (gRPC spells calls so)
        self, request: pb.ChangeMasterRequest, context: Context
    ) -> pb.InfoReply:
        """Change what a master is used for; nothing opened under the old order is kept."""
        await self._admit("ChangeMaster", context)

        def change() -> pb.InfoReply:
            # The import key is always under the current master, also when this was cut short.
            if request.change == pb.ChangeMasterRequest.RETIRE:
                self._import_key.reseal()
            change_master(self._masters, request)
            if request.change == pb.ChangeMasterRequest.USE:
                self._import_key.reseal()
            self._sealer.forget()
            return self._info()

        info = await self._work("change_master", context, change)
        log.warning(
            "master changed",
            change=pb.ChangeMasterRequest.Change.Name(request.change).lower(),
            master_id=request.master_id,
        )
        return info

    async def Info(self, request: pb.InfoRequest, context: Context) -> pb.InfoReply:  # noqa: N802 (gRPC spells calls so)
        """Say which masters are at hand, and what time it is here."""
        await self._admit("Info", context)
        del request
        return await self._work("info", context, self._info)

    def _info(self) -> pb.InfoReply:
        try:
            recipient = self._import_key.recipient()
        except (KeyFileError, KeyNotOpenedError) as error:
            log.error("the import key cannot be used", reason=str(error))  # noqa: TRY400 (says all)
            recipient = ""
        return pb.InfoReply(
            masters=describe_masters(self._masters),
            clock_us=self._clock_us(),
            import_recipient=recipient,
        )

    def _tell_refused(self, call: str, owner: int, code: str, reason: str) -> None:
        """Count and log a key that is not what it is said to be: somebody may try a door."""
        metrics.REFUSED.labels(code).inc()
        log.warning("refused", call=call, owner=owner, code=code, reason=reason)

    def _clock_us(self) -> int:
        return int(self._clock() * 1_000_000)

    async def _admit(self, call: str, context: Context) -> None:
        """Let in whoever has the Unix socket; over TCP, those named for this call."""
        if context.peer().startswith("unix:"):
            return
        names = peer_names(context.auth_context())
        if not set(names) & set(self._allow.names(call)):
            peer = ", ".join(names) or "a peer without a name"
            await self._reject(
                context, grpc.StatusCode.PERMISSION_DENIED, f"{peer} may not call {call}"
            )

    async def _bound(self, items: int, context: Context) -> None:
        if items > self._max_batch:
            await self._reject(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{items} items in one call, {self._max_batch} at most",
            )

    async def _bound_seal(self, items: int, ca_system_id: int, context: Context) -> None:
        await self._bound(items, context)
        if ca_system_id > MAX_CA_SYSTEM_ID:
            await self._reject(context, grpc.StatusCode.INVALID_ARGUMENT, "ca_system_id: 16 bits")

    async def _work(self, call: str, context: Context, work: Callable[[], _T]) -> _T:
        """Run `work` in its turn, unless too many wait or the caller has gone by then."""
        if self._waiting >= MAX_WAITING_CALLS:
            await self._reject(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls wait")
        deadline = _deadline(context)

        def in_time() -> _T:
            if time.monotonic() > deadline:
                raise TimeoutError
            with metrics.SECONDS.labels(call).time():
                return work()

        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, in_time)
        except (KeyRequestError, ColumnsError) as error:
            await self._reject(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        except KeyCustodyError as error:
            await self._reject(context, _status(error), str(error))
            raise
        except TimeoutError:
            await self._reject(context, grpc.StatusCode.DEADLINE_EXCEEDED, "waited too long")
            raise
        finally:
            self._waiting -= 1

    async def _reject(self, context: Context, code: grpc.StatusCode, reason: str) -> None:
        metrics.REJECTED.labels(code.name.lower()).inc()
        log.warning("call rejected", code=code.name, reason=reason)
        await context.abort(code, reason)


def _tell_unsealed(device_id: int, code: str, reason: str) -> None:
    """Count and log an EMM that was refused."""
    metrics.REFUSED.labels(code).inc()
    log.warning("refused", device_id=device_id, code=code, reason=reason)


def _status(error: KeyCustodyError) -> grpc.StatusCode:
    away = isinstance(error, CustodyAwayError)
    return grpc.StatusCode.UNAVAILABLE if away else grpc.StatusCode.FAILED_PRECONDITION


def _deadline(context: Context) -> float:
    remaining: Any = context.time_remaining()  # None where the caller set no deadline
    return float("inf") if remaining is None else time.monotonic() + remaining
