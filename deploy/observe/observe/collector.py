"""A collector of spans, which takes OTLP over gRPC and keeps them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Span:
    """Something that took time; instants are nanoseconds since 1970."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start: int
    end: int
    attributes: dict[str, str]
    failed: str
    links: int


class Collector:
    """Listens on loopback for as long as the context lasts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[Span] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None)

    def spans_until(
        self, trace: str, complete: Callable[[list[Span]], bool], seconds: float = 20
    ) -> list[Span]:
        """The spans of a trace, once they are complete, in the order of their beginnings."""

        def of_trace() -> list[Span]:
            return [span for span in self._spans if span.trace == trace]

        with self._changed:
            self._changed.wait_for(lambda: complete(of_trace()), seconds)
            return sorted(of_trace(), key=lambda span: span.start)

    def _export(self, request: Any, _: grpc.ServicerContext) -> ExportTraceServiceResponse:
        taken = [
            read(span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._changed:
            self._spans += taken
            self._changed.notify_all()
        return ExportTraceServiceResponse()


def read(span: Any) -> Span:
    """A span as it came over the wire."""
    kind = WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
    return Span(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=kind,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes={one.key: value_of(one.value) for one in span.attributes},
        failed=span.status.message if span.status.code == 2 else "",
        links=len(span.links),
    )


def value_of(value: Any) -> str:
    """An attribute's value, as a text."""
    kind = value.WhichOneof("value")
    return "" if kind is None else str(getattr(value, kind))
