"""Requests that are no message of their call: refused as the caller's fault, not as ours."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from portcullis.encryptor import metrics


class RefuseUnreadable(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not one at run time
    """Reads each request itself; gRPC would answer UNKNOWN and log a stack."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 (grpc's handlers are of any request and reply)
        """The call's handler, with a reader in front of it; None where there is no such call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None

        async def answer(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401 (any reply)
            try:
                request = handler.request_deserializer(data)
            except DecodeError:
                metrics.REJECTED.labels("unreadable").inc()
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a request of this call")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )
