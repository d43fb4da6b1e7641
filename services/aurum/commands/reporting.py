"""`aurum report`: writes reports of a running platform to files, which the API computes."""

import os
from collections.abc import Mapping
from pathlib import Path

import httpx

from aurum.platform_settings import CommandSettings

_FORMATS = {".pdf": "pdf", ".xlsx": "xlsx", ".json": "json"}
_TIMEOUT = 120.0  # seconds


class ReportFailedError(Exception):
    """A report was not written. The message says why, and what to do."""


def report_format(file: Path) -> str | None:
    """Returns the format of a report by the ending of its file; None if it has none of them."""
    return _FORMATS.get(file.suffix.lower())


def write_energy_report(url: str, query: Mapping[str, str], file: Path, settings: CommandSettings) -> int:
    """Requests the monthly energy report, and writes it to a file, which is replaced as a whole.

    Args:
        url: The URL of the API.
        query: The parameters of `GET /api/reports/energy`.
        file: The file.
        settings: The settings with the API key, if there is one.

    Returns:
        The size of the file in bytes.

    Raises:
        ReportFailedError: The API cannot be reached, or refuses the request.
        OSError: The file cannot be written.
    """
    headers = {"X-API-Key": settings.api_key.get_secret_value()} if settings.api_key else {}
    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/api/reports/energy",
            params={name: value for name, value in query.items() if value},
            headers=headers,
            timeout=_TIMEOUT,
        )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ReportFailedError(
            f"the API at {url} does not answer ({error}); start it, or name another with --api"
        ) from error
    if not answer.is_success:
        raise ReportFailedError(f"the API at {url} refuses the report: {_problem(answer)}")
    temporary = file.with_name(f"{file.name}.part")
    temporary.write_bytes(answer.content)
    os.replace(temporary, file)
    return len(answer.content)


def _problem(answer: httpx.Response) -> str:
    """Returns what an answer says about its error."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.reason_phrase
    return f"{answer.status_code} {detail}"
