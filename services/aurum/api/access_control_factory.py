"""Builds the access control of the API from the settings."""

import logging
import secrets
from collections.abc import Container, Mapping
from typing import Any

from aurum.api.access_control import AccessControl
from aurum.api.settings import ApiSettings
from aurum.runtime.http.bind_policy import require_authentication
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.service import Service
from aurum.runtime.settings import OPEN, SettingsError
from aurum.security.api_keys import ApiKeys, KeyFileError
from aurum.security.identity import parse_roles
from aurum.security.permissions import ROUTES
from aurum.security.rate_limits import RateLimits
from aurum.security.sessions import Sessions
from aurum.security.tokens import Issuer, Tokens

logger = logging.getLogger(__name__)


def build_access_control(service: Service[ApiSettings], ended_sessions: Container[str]) -> AccessControl:
    """Builds the access control.

    Args:
        service: The service with its settings.
        ended_sessions: Ids of the sessions that were signed out before they expired.

    Raises:
        SettingsError: A setting or the key file is invalid, or the API would listen on more than this machine without
            authentication and without explicit permission.
    """
    settings = service.settings
    limits = RateLimits(settings.api_rate, settings.api_rate_burst) if settings.api_rate else None
    if settings.auth_keys_file is None and settings.auth_oidc_issuer is None:
        require_authentication(
            settings.api_host,
            "AURUM_API_HOST",
            openness=settings.auth_open,
            name="AURUM_AUTH_OPEN",
            instead="AURUM_AUTH_KEYS_FILE or AURUM_AUTH_OIDC_ISSUER",
        )
        return AccessControl.open(limits, local=settings.auth_open != OPEN)
    try:
        keys = ApiKeys(settings.auth_keys_file) if settings.auth_keys_file else None
    except KeyFileError as error:
        raise SettingsError(f"AURUM_AUTH_KEYS_FILE: {error}") from error
    tokens = _build_tokens(service) if settings.auth_oidc_issuer else None
    return AccessControl(keys, tokens, _build_sessions(settings, ended_sessions), limits, ROUTES)


def _build_sessions(settings: ApiSettings, ended_sessions: Container[str]) -> Sessions:
    setting = settings.auth_session_secret
    if setting is None:
        logger.info(
            "AURUM_AUTH_SESSION_SECRET is not set: console sessions are valid only at this process, until it ends"
        )
    secret = setting.get_secret_value().encode() if setting else secrets.token_bytes(32)
    try:
        return Sessions(secret, settings.auth_session_hours * 3600, ended=ended_sessions)
    except ValueError as error:
        raise SettingsError(f"AURUM_AUTH_SESSION_SECRET: {error}") from error


def _build_tokens(service: Service[ApiSettings]) -> Tokens:
    settings = service.settings
    issuer = settings.auth_oidc_issuer or ""
    server = service.http_dependency("oidc", issuer, connections=2)
    names = dict(pair.split("=", 1) for pair in settings.auth_oidc_role_names.split(",") if "=" in pair)
    try:
        parse_roles(names.values() or ["viewer"])
    except ValueError as error:
        raise SettingsError(f"AURUM_AUTH_OIDC_ROLE_NAMES: {error}") from error
    return Tokens(
        Issuer(
            issuer,
            settings.auth_oidc_audience,
            settings.auth_oidc_roles_claim,
            settings.auth_oidc_sites_claim,
            names,
        ),
        lambda: _fetch_key_set(server, settings),
    )


async def _fetch_key_set(server: HttpDependency, settings: ApiSettings) -> Mapping[str, Any]:
    url = settings.auth_oidc_jwks_url
    if url is None:
        issuer = (settings.auth_oidc_issuer or "").rstrip("/")
        url = str((await server.get_json("/.well-known/openid-configuration", at=issuer))["jwks_uri"])
    key_set = await server.get_json("", at=url)
    return key_set if isinstance(key_set, dict) else {}
