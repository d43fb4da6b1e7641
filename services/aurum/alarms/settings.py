"""Settings of services that deal with alarms."""

from pathlib import Path

from pydantic import Field

from aurum.runtime.settings import Settings


class AlarmSettings(Settings):
    """Settings of services that deal with alarms: prediction evaluates the rules, and the API shows their texts."""

    alarm_rules: Path | None = Field(
        None,
        description="Alarm rules (YAML), the same file for both services. The default rules suit most machines. Rules "
        "that engineers store in the console replace them.",
    )
