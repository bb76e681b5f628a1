"""Requests that are no message of their call: refused as the caller's fault, not as ours."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from portcullis.encryptor import metrics

_Context = grpc.aio.ServicerContext[Any, Any]


class RefuseUnreadable(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not one at run time
    """Reads each request itself; gRPC would answer UNKNOWN and log a stack."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 (grpc's handlers are of any request and reply)
        """The call's handler, with a reader in front of it; None where there is no such call.

        Calls that answer one request with many are not ours (grpc.health.v1's Watch).
        """
        handler = await continuation(handler_call_details)
        if handler is None or (handler.response_streaming and not handler.request_streaming):
            return handler

        async def read(data: bytes, context: _Context) -> Any:  # noqa: ANN401 (any request)
            try:
                return handler.request_deserializer(data)
            except DecodeError:
                metrics.REJECTED.labels("unreadable").inc()
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a request of this call")

        async def answer(data: bytes, context: _Context) -> Any:  # noqa: ANN401 (any reply)
            return await handler.unary_unary(await read(data, context), context)

        async def converse(requests: AsyncIterator[bytes], context: _Context) -> None:
            await handler.stream_stream(
                (await read(data, context) async for data in requests), context
            )

        serialize = handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(answer, response_serializer=serialize)
        return grpc.stream_stream_rpc_method_handler(converse, response_serializer=serialize)
