"""JSON logs on stdout: one object per line, with the trace and the request that it belongs to."""

import contextvars
import json
import logging
import logging.handlers
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonEncoder, JsonFormatter

from aurum import __version__
from aurum.runtime.settings import Settings, get_settings

APP_NAME = "AurumAI Platform"
MAX_USER = 200  # characters of a user's name in logs
_CONTEXT_FIELDS = ("request_id", "machine_id", "user_id")
_CHATTY = ("httpx", "httpcore", "httpx2", "httpcore2", "uvicorn.error", "asyncio", "asyncua", "kopf")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_request: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("aurum_request", default=_NOTHING)
_RESERVED = frozenset({*RESERVED_ATTRS, "taskName"})  # attributes of each record
# Fields that no extra field of a record replaces
_FIXED = frozenset({"timestamp", "severity", "logger", "message", "environment", "app_name", "app_version", "service"})
_quoted = json.encoder.encode_basestring_ascii
_ECS_NAMES = {
    "timestamp": "@timestamp",
    "severity": "log.level",
    "logger": "log.logger",
    "environment": "service.environment",
    "service": "service.name",
    "app_version": "service.version",
    "trace_id": "trace.id",
    "span_id": "span.id",
    "user_id": "user.id",
    "request_id": "http.request.id",
    "exc_info": "error.stack_trace",
    "error_type": "error.type",
}


def set_request_context(
    *, request_id: str | None = None, machine_id: str | None = None, user_id: str | None = None
) -> contextvars.Token[Mapping[str, str]]:
    """Adds the given fields to every log line of the current request. The returned token undoes it."""
    fields = zip(_CONTEXT_FIELDS, (request_id, machine_id, user_id), strict=True)
    return _request.set({**_request.get()} | {name: value for name, value in fields if value is not None})


def reset_request_context(token: contextvars.Token[Mapping[str, str]]) -> None:
    """Restores the fields of log lines that were in force before `set_request_context` returned the token."""
    _request.reset(token)


def get_request_context() -> dict[str, str]:
    """Returns the fields that are added to each log line of the current request."""
    return dict(_request.get())


class ContextualJSONFormatter(JsonFormatter):
    """Adds time, service, request and trace to each log line. ecs: Use the names of the Elastic Common Schema."""

    def __init__(
        self, *, service: str = "aurum", environment: str = "development", ecs: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._constant = {
            "environment": environment,
            "app_name": APP_NAME,
            "app_version": __version__,
            "service": service,
        }
        self._ecs = ecs
        self._encode = JsonEncoder().encode
        self._constant_json = "".join(f", {_quoted(name)}: {_quoted(text)}" for name, text in self._constant.items())

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record. Those without an error, which are nearly all, take a short cut."""
        if isinstance(record.msg, dict) or record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        record.message = record.getMessage()
        extra = {
            name: value for name, value in record.__dict__.items() if name not in _RESERVED and not name.startswith("_")
        }
        if self._ecs:
            log_data: dict[str, Any] = {}
            self._add_platform_fields(log_data, record, extra)
            return self._encode(log_data)
        return self._line(record, extra)

    def _line(self, record: logging.LogRecord, extra: dict[str, Any]) -> str:
        """Returns what `_add_platform_fields` makes, as JSON. Most of a line is known or a text."""
        varying: dict[str, Any] = {}
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            varying["trace_id"] = f"{span.trace_id:032x}"
            varying["span_id"] = f"{span.span_id:016x}"
        varying.update(_request.get())
        for name, value in extra.items():
            if name not in varying and name not in _FIXED:
                varying[name] = value
        parts = [
            f'{{"timestamp": "{_timestamp(record)}", "severity": "{record.levelname}", '
            f'"logger": {_quoted(record.name)}, "message": {_quoted(record.message)}{self._constant_json}'
        ]
        for name, value in varying.items():
            parts.append(f", {_quoted(name)}: {_quoted(value) if type(value) is str else self._encode(value)}")
        parts.append("}")
        return "".join(parts)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Adds the fields of this platform to those of the JSON formatter."""
        super().add_fields(log_data, record, message_dict)
        extra = dict(log_data)
        log_data.clear()
        self._add_platform_fields(log_data, record, extra)

    def _add_platform_fields(self, log_data: dict[str, Any], record: logging.LogRecord, extra: dict[str, Any]) -> None:
        log_data["timestamp"] = _timestamp(record)
        log_data["severity"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = extra.pop("message", record.message)
        log_data.update(self._constant)
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            log_data["trace_id"] = format(span.trace_id, "032x")
            log_data["span_id"] = format(span.span_id, "016x")
        log_data.update(_request.get())
        if record.exc_info and record.exc_info[0]:
            log_data["error_type"] = record.exc_info[0].__name__
        log_data.update({name: value for name, value in extra.items() if name not in log_data})
        if self._ecs:
            for name, ecs_name in _ECS_NAMES.items():
                if name in log_data:
                    log_data[ecs_name] = log_data.pop(name)
            log_data["ecs.version"] = "8.11"


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _TextFormatter(logging.Formatter):
    """Formats each message as one line.

    Control characters are escaped, so that data from outside can neither start a new line nor colour the terminal.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = "".join(char if char.isprintable() else _escaped(char) for char in record.message)
        return super().formatMessage(record)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def setup_logging(service: str = "aurum", settings: Settings | None = None) -> None:
    """Sends the logs of this process to stdout and, if set, to a file. uvicorn, grpc and warnings are included."""
    settings = settings or get_settings()
    formatter: logging.Formatter
    if settings.log_format == "text":
        formatter = _TextFormatter(f"%(asctime)s %(levelname)-7s {service} %(name)s: %(message)s")
    else:
        formatter = ContextualJSONFormatter(
            service=service, environment=settings.environment, ecs=settings.log_format == "ecs"
        )
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if settings.log_to_file:
        settings.log_file_path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.RotatingFileHandler(
                settings.log_file_path,
                maxBytes=settings.log_file_max_bytes,
                backupCount=settings.log_file_backups,
                encoding="utf-8",
            )
        )
    # Nor the place in the code, which costs a walk of the stack for each line ("Optimization" in the docs of logging)
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no format has them
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "grpc"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    set_log_level(settings.log_level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def set_log_level(level: str) -> None:
    """Sets the lowest severity that is logged. Verbose libraries log warnings and above only."""
    root = logging.getLogger()
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> logging.Logger:
    """Returns the logger of a module."""
    return logging.getLogger(name)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger("aurum").critical("uncaught error: %s", error, exc_info=(kind, error, traceback))
