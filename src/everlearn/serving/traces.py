"""Traces of requests and jobs, sent by OpenTelemetry to where its environment variables say."""

from __future__ import annotations

from typing import Any

from everlearn.base import MissingDependencyError


def trace_jobs(service: str = "everlearn") -> Any:
    """Send a trace of every job that this process plans or carries out: spans "plan", "job",
    "learn", "gate" and "promote", with the ids of model, job and version.

    Where to is said by the standard variables, such as ``OTEL_EXPORTER_OTLP_ENDPOINT`` (a
    collector that takes OTLP over HTTP; ``http://localhost:4318`` unless said) and
    ``OTEL_TRACES_SAMPLER``.

    Args:
        service: name under which traces are shown, unless ``OTEL_SERVICE_NAME`` says another.

    Returns:
        The tracer provider, which is the process's from now on. What it has not sent yet, it sends
        when the process ends.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace as otel
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    otel.set_tracer_provider(provider)
    return provider


def trace(app: Any, service: str = "everlearn") -> None:
    """Send traces of jobs, as `trace_jobs`, and of every request: its route, status and duration.

    Args:
        app: of `Workspace.app`.
        service: as for `trace_jobs`.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=trace_jobs(service), excluded_urls="/healthz$,/readyz$,/metrics$"
    )


def _missing(error: ModuleNotFoundError) -> MissingDependencyError:
    return MissingDependencyError(
        f"traces need OpenTelemetry ({error.name}): pip install 'everlearn[traces]'"
    )
