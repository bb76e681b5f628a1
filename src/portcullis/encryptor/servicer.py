"""The gRPC end: bounds, deadlines and error codes around sealer and custodian."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

import grpc

from portcullis.encryptor import metrics
from portcullis.encryptor.custodian import (
    KeyRequestError,
    change_master,
    describe_masters,
    import_device_keys,
    make_chain,
    rewrap,
    verify,
)
from portcullis.encryptor.sealer import Sealer
from portcullis.keys import (
    Custody,
    CustodyAwayError,
    KeyFileError,
    MasterError,
    MasterStore,
    TokenError,
)
from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.encryptor_pb2_grpc import EncryptorServicer

MAX_WAITING_CALLS = 32
"""Back-pressure: calls beyond are told RESOURCE_EXHAUSTED at once and come again."""

MAX_CA_SYSTEM_ID = 0xFFFF

Context = grpc.aio.ServicerContext[Any, Any]
_T = TypeVar("_T")

log = get_logger("portcullis.encryptor")


class Servicer(EncryptorServicer):
    """Answers calls; the work runs on `executor`, so that the loop stays free."""

    def __init__(
        self,
        masters: MasterStore,
        sealer: Sealer,
        executor: Executor,
        max_batch: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._masters = masters
        self._custody = Custody(masters)
        self._sealer = sealer
        self._executor = executor
        self._max_batch = max_batch
        self._clock = clock
        self._waiting = 0

    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.SealReply:  # noqa: N802 (gRPC spells calls so)
        """Seal EMMs, each answered on its own."""
        await self._bound(len(request.items), context)
        if request.ca_system_id > MAX_CA_SYSTEM_ID:
            await self._reject(context, grpc.StatusCode.INVALID_ARGUMENT, "ca_system_id: 16 bits")
        reply, refused = await self._work("seal", context, lambda: self._sealer.seal(request))
        metrics.SEALED.inc(len(reply.items) - len(refused))
        for place in refused:
            asked, item = request.items[place], reply.items[place]
            metrics.REFUSED.labels(item.code).inc()
            log.warning("refused", device_id=asked.address, code=item.code, reason=item.error)
        reply.clock_us = self._clock_us()
        return reply

    async def MakeChain(self, request: pb.MakeChainRequest, context: Context) -> pb.SealedKey:  # noqa: N802 (gRPC spells calls so)
        """Make a product key chain, sealed."""
        return await self._work("make_chain", context, lambda: make_chain(self._custody, request))

    async def ImportDeviceKeys(self, request: pb.ImportRequest, context: Context) -> pb.ImportReply:  # noqa: N802 (gRPC spells calls so)
        """Seal device keys: all of them or none."""
        await self._bound(len(request.keys), context)
        keys = await self._work(
            "import", context, lambda: import_device_keys(self._custody, request.keys)
        )
        return pb.ImportReply(keys=keys)

    async def Rewrap(self, request: pb.RewrapRequest, context: Context) -> pb.RewrapReply:  # noqa: N802 (gRPC spells calls so)
        """Seal keys anew under the current master, each answered on its own."""
        await self._bound(len(request.keys), context)
        keys = await self._work(
            "rewrap", context, lambda: [rewrap(self._custody, key) for key in request.keys]
        )
        self._tell_refused("rewrap", request.keys, [key.error for key in keys])
        return pb.RewrapReply(keys=keys)

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyReply:  # noqa: N802 (gRPC spells calls so)
        """Say which keys open, and why others do not."""
        await self._bound(len(request.keys), context)
        errors = await self._work(
            "verify", context, lambda: [verify(self._custody, key) for key in request.keys]
        )
        self._tell_refused("verify", request.keys, errors)
        return pb.VerifyReply(errors=errors)

    async def ChangeMaster(  # noqa: N802 (gRPC spells calls so)
        self, request: pb.ChangeMasterRequest, context: Context
    ) -> pb.InfoReply:
        """Change what a master is used for; nothing opened under the old order is kept."""

        def change() -> list[pb.Master]:
            change_master(self._masters, request)
            self._sealer.forget()
            return describe_masters(self._masters)

        masters = await self._work("change_master", context, change)
        log.warning(
            "master changed",
            change=pb.ChangeMasterRequest.Change.Name(request.change).lower(),
            master_id=request.master_id,
        )
        return pb.InfoReply(masters=masters, clock_us=self._clock_us())

    async def Info(self, request: pb.InfoRequest, context: Context) -> pb.InfoReply:  # noqa: N802 (gRPC spells calls so)
        """Say which masters are at hand, and what time it is here."""
        del request
        masters = await self._work("info", context, lambda: describe_masters(self._masters))
        return pb.InfoReply(masters=masters, clock_us=self._clock_us())

    def _tell_refused(self, call: str, keys: Sequence[pb.SealedKey], errors: Sequence[str]) -> None:
        """Count and log keys that do not open: each may be somebody trying a door."""
        for key, error in zip(keys, errors, strict=True):
            if error:
                metrics.REFUSED.labels("not_sealed_here").inc()
                log.warning("refused", call=call, owner=key.owner, reason=error)

    def _clock_us(self) -> int:
        return int(self._clock() * 1_000_000)

    async def _bound(self, items: int, context: Context) -> None:
        if items > self._max_batch:
            await self._reject(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{items} items in one call, {self._max_batch} at most",
            )

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
        except KeyRequestError as error:
            await self._reject(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        except CustodyAwayError as error:
            await self._reject(context, grpc.StatusCode.UNAVAILABLE, str(error))
            raise
        except (MasterError, KeyFileError, TokenError) as error:
            await self._reject(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
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


def _deadline(context: Context) -> float:
    remaining: Any = context.time_remaining()  # None where the caller set no deadline
    return float("inf") if remaining is None else time.monotonic() + remaining
