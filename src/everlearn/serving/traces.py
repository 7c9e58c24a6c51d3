"""Traces of requests, sent by OpenTelemetry to where its environment variables say."""

from __future__ import annotations

from typing import Any

from everlearn.base import MissingDependencyError


def trace(app: Any, service: str = "everlearn") -> None:
    """Send a trace of every request: its route, status and duration.

    Where to is said by the standard variables, such as ``OTEL_EXPORTER_OTLP_ENDPOINT`` (a
    collector that takes OTLP over HTTP; ``http://localhost:4318`` unless said) and
    ``OTEL_TRACES_SAMPLER``.

    Args:
        app: of `Workspace.app`.
        service: name under which traces are shown, unless ``OTEL_SERVICE_NAME`` says another.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace as otel
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"traces need OpenTelemetry ({error.name}): pip install 'everlearn[traces]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    otel.set_tracer_provider(provider)
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls="/healthz$,/readyz$,/metrics$"
    )
