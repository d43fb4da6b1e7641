"""Settings of the API service."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from aurum.alarms.settings import AlarmSettings
from aurum.runtime.settings import Openness


class ApiSettings(AlarmSettings):
    """Settings of the API service."""

    feature_predictive: bool = Field(True, description="Whether predictions are available.")
    feature_carbon: bool = Field(True, description="Whether carbon accounting is available.")
    feature_energy: bool = Field(True, description="Whether energy accounting is available.")
    feature_water: bool = Field(False, description="Whether water accounting is available.")
    feature_analytics: bool = Field(True, description="Whether features and explanations are available.")
    api_host: str = Field("127.0.0.1", description="Address on which the API listens.")
    api_port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    api_body_budget_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        description="Maximum bytes of request bodies in memory at a time. One caller may use half of them.",
    )
    api_max_body_bytes: int = Field(16_000_000, ge=1024, description="Maximum size of a body of readings, in bytes.")
    api_head_timeout: float = Field(
        10.0, gt=0, le=600, description="Timeout for the request line and headers, in seconds."
    )
    api_body_timeout: float = Field(120.0, gt=0, le=3600, description="Timeout for the request body, in seconds.")
    api_max_connections: int = Field(
        2000,
        ge=1,
        description="Maximum number of open connections. Beyond it, the connection that has waited longest for "
        "its headers is closed.",
    )
    api_max_connections_per_address: int = Field(
        1000,
        ge=1,
        description="Maximum number of open connections of one address. Behind a proxy this is the address of "
        "the proxy.",
    )
    api_trusted_proxies: str = Field(
        "",
        description="Addresses or networks of proxies, separated by commas, whose X-Forwarded-For header is trusted.",
    )
    api_refresh_interval: float = Field(
        0.25,
        ge=0.2,
        description="Seconds between two updates of the machine data that lists and the console show; with 10,000 "
        "machines at least 1. Values above 5 count as 5.",
    )
    api_first_look: float = Field(
        10.0, ge=0, description="Maximum seconds that a starting API waits for the machine data before it is ready."
    )
    api_max_event_streams: int = Field(
        200,
        ge=1,
        description="Maximum number of open /api/events streams. Further streams are refused. Each caller may "
        "use a share of them.",
    )
    auth_keys_file: Path | None = Field(
        None, description="File of API keys, created by `aurum key`. If set, callers must authenticate."
    )
    auth_oidc_issuer: str | None = Field(
        None, description="OIDC issuer whose tokens are accepted, such as https://login.example.com/realms/plant."
    )
    auth_oidc_audience: str = Field("aurumai", description="Required audience of the tokens.")
    auth_oidc_jwks_url: str | None = Field(
        None,
        description="URL of the issuer's key set. The default is the one in its /.well-known/openid-configuration.",
    )
    auth_oidc_roles_claim: str = Field("roles", description="Claim with the roles, such as realm_access.roles.")
    auth_oidc_sites_claim: str = Field("sites", description="Claim with the sites to which a user is bound.")
    auth_oidc_role_names: str = Field(
        "", description="Roles for the role names of the issuer, as name=role,… Names that equal a role need no entry."
    )
    auth_session_secret: SecretStr | None = Field(
        None,
        description="Secret that signs the console's sessions, of at least 32 characters. It must be the same in "
        "all replicas. Unset, each process creates one.",
    )
    auth_session_hours: float = Field(12.0, gt=0, le=720, description="Lifetime of a console session, in hours.")
    auth_open: Openness = Field(
        "no", description="Whether the API may listen on non-local addresses without authentication."
    )
    api_rate: float = Field(
        0.0, ge=0, description="Sustained rate limit of one identity, in requests per second; 0 for no limit."
    )
    api_rate_burst: float = Field(200.0, ge=1, description="Requests that one identity may send at once.")
    console_jaeger_url: str | None = Field(
        None,
        description="URL of Jaeger for browsers, such as http://localhost:16686, to which the console links traces.",
    )
    console_grafana_url: str | None = Field(
        None, description="URL of Grafana for browsers, to which the console links dashboards."
    )
    console_logs_url: str | None = Field(
        None,
        description="URL of the logs of a trace, with {trace_id} as placeholder, such as a query in Grafana's "
        "Explore. The console links to it.",
    )
    console_simulation_speed: float = Field(
        0.0,
        ge=0,
        description="Seconds of machine life per second in the simulated plant, which a banner of the console tells; 0 "
        "for a real plant. `make run` sets it to the speed of its simulator.",
    )
    costs_file: Path | None = Field(
        None, description="Maintenance costs (YAML). The default is assumptions for the simulated plant."
    )
    sustainability_plan: Path | None = Field(
        None,
        description="Accounting plan (YAML): meters, lines, sites, contracts, tariffs. The default is that of the "
        "simulated plant.",
    )
    sustainability_factors: Path | None = Field(
        None, description="Yearly emission factors (CSV). They extend and override the built-in ones."
    )
    sustainability_hourly_factors: Path | None = Field(None, description="Hourly emission factors (CSV).")
    sustainability_provider: Literal["none", "electricity_maps", "carbon_aware"] = Field(
        "none", description="Type of the service that provides hourly emission factors."
    )
    sustainability_provider_url: str | None = Field(None, description="URL of this service, such as https://host.")
    sustainability_provider_key: SecretStr | None = Field(
        None, description="API key for this service (header auth-token)."
    )
