"""Settings of commands that call a running platform."""

from pydantic import Field, SecretStr

from aurum.runtime.settings import Settings


class CommandSettings(Settings):
    """Settings of commands that call a running platform."""

    api_key: SecretStr | None = Field(None, description="Key that `aurum import --api` shows, where an API asks.")
