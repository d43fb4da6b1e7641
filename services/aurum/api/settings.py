"""Settings of the API service."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from aurum.runtime.settings import Openness, Settings


class ApiSettings(Settings):
    """Settings of the API service."""

    feature_predictive: bool = Field(True, description="Predictions are offered.")
    feature_carbon: bool = Field(True, description="Carbon accounting is offered.")
    feature_energy: bool = Field(True, description="Energy accounting is offered.")
    feature_water: bool = Field(False, description="Water accounting is offered.")
    feature_analytics: bool = Field(True, description="Features and explanations are offered.")
    api_host: str = Field("127.0.0.1", description="Address that the API listens on.")
    api_port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    api_body_budget_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        description="Bytes of request bodies that the API holds at once; half for one caller.",
    )
    api_max_body_bytes: int = Field(16_000_000, ge=1024, description="Largest request body, in bytes.")
    api_head_timeout: float = Field(
        10.0, gt=0, le=600, description="Seconds that a client gets for a request's line and headers."
    )
    api_body_timeout: float = Field(120.0, gt=0, le=3600, description="Seconds that it gets for a whole body.")
    api_max_connections: int = Field(
        2000, ge=1, description="Open connections; beyond, whoever has waited longest with its headers goes."
    )
    api_max_connections_per_address: int = Field(
        1000, ge=1, description="Of one address; behind a proxy that is the proxy's."
    )
    api_trusted_proxies: str = Field(
        "", description="Addresses or networks of proxies whose X-Forwarded-For says who a client is, with commas."
    )
    api_refresh_interval: float = Field(
        3.0, ge=0.2, description="Seconds between two looks at the plant, for risk in lists and the console."
    )
    api_first_look: float = Field(
        10.0, ge=0, description="Seconds that a new API waits at most to know the plant, before it counts as ready."
    )
    api_max_event_streams: int = Field(
        200, ge=1, description="Open /api/events streams; more are refused. Each caller may have a share of them."
    )
    auth_keys_file: Path | None = Field(
        None, description="File of API keys, made by `aurum key`; callers then have to say who they are."
    )
    auth_oidc_issuer: str | None = Field(
        None, description="OIDC issuer, such as https://login.example.com/realms/plant, whose tokens are accepted."
    )
    auth_oidc_audience: str = Field("aurumai", description="Audience that its tokens must be for.")
    auth_oidc_jwks_url: str | None = Field(
        None, description="Its key set; by default what its /.well-known/openid-configuration names."
    )
    auth_oidc_roles_claim: str = Field("roles", description="Claim with the roles, such as realm_access.roles.")
    auth_oidc_sites_claim: str = Field("sites", description="Claim with the sites that a user is bound to.")
    auth_oidc_role_names: str = Field(
        "", description="What roles of the issuer mean here, as name=role,…; those with our names need none."
    )
    auth_session_secret: SecretStr | None = Field(
        None, description="Signs the console's sessions, at least 32 characters, alike at all replicas; else made anew."
    )
    auth_session_hours: float = Field(12.0, gt=0, le=720, description="Hours that a session of the console lasts.")
    auth_open: Openness = Field(
        "no", description="Whether the API listens on more than this machine without asking callers who they are."
    )
    api_rate: float = Field(0.0, ge=0, description="Requests a second of one identity, in the long run; 0 for any.")
    api_rate_burst: float = Field(200.0, ge=1, description="Requests of one identity at once.")
    console_jaeger_url: str | None = Field(
        None,
        description="Jaeger as a browser reaches it, such as http://localhost:16686; the console links its traces.",
    )
    console_grafana_url: str | None = Field(None, description="Grafana, likewise; the console links its dashboards.")
    console_logs_url: str | None = Field(
        None,
        description="Where the logs of a trace are shown, with {trace_id} in its place, such as a query of Grafana's "
        "Explore; the console links it.",
    )
    alarm_rules: Path | None = Field(None, description="Alarm rules (YAML); by default a few that fit most machines.")
    costs_file: Path | None = Field(
        None, description="Cost table of maintenance (YAML); by default assumptions for the simulated plant."
    )
    sustainability_plan: Path | None = Field(
        None, description="Accounting plan (YAML): meters, lines, sites, contracts; by default the simulated plant's."
    )
    sustainability_factors: Path | None = Field(
        None, description="Yearly emission factors (CSV) beside those that come with AurumAI, or in their place."
    )
    sustainability_hourly_factors: Path | None = Field(None, description="Hourly emission factors (CSV).")
    sustainability_provider: Literal["none", "electricity_maps", "carbon_aware"] = Field(
        "none", description="Interface of the service that is asked for hourly emission factors."
    )
    sustainability_provider_url: str | None = Field(None, description="Where it is, such as https://host.")
    sustainability_provider_key: SecretStr | None = Field(None, description="Key that it wants (header auth-token).")
