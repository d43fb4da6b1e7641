"""Settings of the API service."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from aurum.runtime.settings import Openness, Settings


class ApiSettings(Settings):
    """Settings of the API service."""

    feature_predictive: bool = Field(True, description="Whether predictions are available.")
    feature_carbon: bool = Field(True, description="Whether carbon accounting is available.")
    feature_energy: bool = Field(True, description="Whether energy accounting is available.")
    feature_water: bool = Field(False, description="Whether water accounting is available.")
    feature_analytics: bool = Field(True, description="Whether features and explanations are available.")
    api_host: str = Field("127.0.0.1", description="Address that the API listens on.")
    api_port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    api_body_budget_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        description="Maximum bytes of request bodies in memory; one caller may use half.",
    )
    api_max_body_bytes: int = Field(16_000_000, ge=1024, description="Maximum bytes of a request body.")
    api_head_timeout: float = Field(
        10.0, gt=0, le=600, description="Seconds within which a client must send the request line and headers."
    )
    api_body_timeout: float = Field(
        120.0, gt=0, le=3600, description="Seconds within which a client must send the body."
    )
    api_max_connections: int = Field(
        2000,
        ge=1,
        description="Maximum open connections; beyond it, the one that has waited longest for its headers is closed.",
    )
    api_max_connections_per_address: int = Field(
        1000, ge=1, description="Maximum open connections of one address; behind a proxy, of the proxy."
    )
    api_trusted_proxies: str = Field(
        "", description="Addresses or networks of proxies whose X-Forwarded-For is trusted, separated by commas."
    )
    api_refresh_interval: float = Field(
        3.0, ge=0.2, description="Seconds between background predictions, which lists and the console show."
    )
    api_first_look: float = Field(
        10.0, ge=0, description="Maximum seconds for which a new API is not ready because machines are not loaded."
    )
    api_max_event_streams: int = Field(
        200, ge=1, description="Maximum open /api/events streams; each caller may have a share of them."
    )
    auth_keys_file: Path | None = Field(
        None, description="File of API keys, made by `aurum key`; requires callers to authenticate."
    )
    auth_oidc_issuer: str | None = Field(
        None, description="OIDC issuer of accepted tokens, such as https://login.example.com/realms/plant."
    )
    auth_oidc_audience: str = Field("aurumai", description="Required audience of OIDC tokens.")
    auth_oidc_jwks_url: str | None = Field(
        None, description="URL of the issuer's key set; by default from its /.well-known/openid-configuration."
    )
    auth_oidc_roles_claim: str = Field("roles", description="Claim with the roles, such as realm_access.roles.")
    auth_oidc_sites_claim: str = Field("sites", description="Claim with the sites that a user is bound to.")
    auth_oidc_role_names: str = Field(
        "", description="Roles for names of the issuer, as name=role,…; names that are roles need no entry."
    )
    auth_session_secret: SecretStr | None = Field(
        None,
        description="Secret that signs console sessions, at least 32 characters, equal at all replicas; else random.",
    )
    auth_session_hours: float = Field(12.0, gt=0, le=720, description="Hours after which a console session expires.")
    auth_open: Openness = Field(
        "no", description="Whether the API may listen beyond this machine without authentication."
    )
    api_rate: float = Field(0.0, ge=0, description="Sustained requests per second of one identity; 0 for no limit.")
    api_rate_burst: float = Field(200.0, ge=1, description="Requests of one identity in a burst.")
    console_jaeger_url: str | None = Field(
        None,
        description="URL of Jaeger for browsers, such as http://localhost:16686; the console links to its traces.",
    )
    console_grafana_url: str | None = Field(
        None, description="URL of Grafana for browsers; the console links to its dashboards."
    )
    console_logs_url: str | None = Field(
        None,
        description="URL of the logs of a trace with the placeholder {trace_id}, such as a query of Grafana Explore; "
        "the console links to it.",
    )
    alarm_rules: Path | None = Field(None, description="Alarm rules (YAML); by default a few for common machines.")
    costs_file: Path | None = Field(
        None, description="Cost table of maintenance (YAML); by default assumptions for the simulated plant."
    )
    sustainability_plan: Path | None = Field(
        None, description="Accounting plan (YAML): meters, lines, sites, contracts; by default the simulated plant's."
    )
    sustainability_factors: Path | None = Field(
        None, description="Yearly emission factors (CSV) that extend or replace the built-in ones."
    )
    sustainability_hourly_factors: Path | None = Field(None, description="Hourly emission factors (CSV).")
    sustainability_provider: Literal["none", "electricity_maps", "carbon_aware"] = Field(
        "none", description="Interface of the service that provides hourly emission factors."
    )
    sustainability_provider_url: str | None = Field(None, description="Base URL of that service, such as https://host.")
    sustainability_provider_key: SecretStr | None = Field(
        None, description="API key of that service (header auth-token)."
    )
