"""Exports audit lines as OpenTelemetry log events over OTLP, to the endpoint of the traces."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

from aurum import __version__
from aurum.runtime import metrics
from aurum.runtime.settings import Settings
from aurum.runtime.telemetry.tracing import describe_process

EVENT_NAME = "aurum.audit"
_QUEUE = 2048  # events that wait for a collector
_TIMEOUT = 2.0  # seconds


class AuditExport:
    """Sends events from a bounded queue on its own thread. Lost events are counted, and remain in log and file."""

    def __init__(self, service: str, settings: Settings, endpoint: str) -> None:
        logging.getLogger(OTLPLogExporter.__module__.rpartition(".")[0]).setLevel(logging.CRITICAL)
        exporter = OTLPLogExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=_TIMEOUT)
        self._provider = LoggerProvider(describe_process(service, settings), shutdown_on_exit=False)
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                _CountedExporter(exporter),
                max_queue_size=_QUEUE,
                schedule_delay_millis=settings.tracing_export_interval * 1000,
            )
        )
        self._logger = self._provider.get_logger("aurum.audit", __version__)

    def send(self, sentence: str, act: Mapping[str, Any]) -> None:
        """Queues an event. act: The fields of the audit line; values may be nested."""
        self._logger.emit(
            timestamp=time.time_ns(),
            context=trace.set_span_in_context(trace.get_current_span()),
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=sentence,
            attributes={f"audit.{name}": value for name, value in act.items() if value is not None},
            event_name=EVENT_NAME,
        )

    def close(self) -> None:
        """Sends the queued events. It returns within a few seconds even if the collector does not respond."""
        self._provider.shutdown()


class _CountedExporter(LogRecordExporter):
    def __init__(self, exporter: LogRecordExporter) -> None:
        self._exporter = exporter

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = self._exporter.export(batch)
        if result is not LogRecordExportResult.SUCCESS:
            metrics.audit_events_dropped_total.inc(len(batch))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
