"""Access control of the admin server: probes and metrics are public, and everything else requires the admin token."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from aurum.runtime.admin.tokens import AdminTokens
from aurum.runtime.health import PROBES
from aurum.runtime.http.bind_policy import is_loopback, require_authentication
from aurum.runtime.http.csrf import has_foreign_host, is_cross_site_write
from aurum.runtime.settings import Settings


class AdminAuth:
    """Checks each request before it reaches the application.

    Args:
        app: The application of the admin server.
        tokens: The accepted tokens, or None if none is required.
        local: Whether only this machine may use the server.
    """

    def __init__(self, app: ASGIApp, tokens: AdminTokens | None, *, local: bool) -> None:
        self._app = app
        self._tokens = tokens
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request without the required token with 401, and passes on the others."""
        if scope["type"] == "http" and (problem := self._problem(scope, Headers(scope=scope))):
            status, detail = problem
            await JSONResponse({"detail": detail}, status_code=status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        if self._tokens is None:
            if is_cross_site_write(scope["method"], headers):
                return 403, "a browser changes nothing here for another site"
            if self._local and has_foreign_host(headers):
                return 403, "this machine is asked under a name that is not its own"
            return None
        if scope["path"] in PROBES or self._tokens.accepts(headers.get("authorization", "")):
            return None
        return (
            401,
            "the admin server wants its token: Authorization: Bearer … (AURUM_ADMIN_TOKEN or AURUM_ADMIN_TOKEN_FOLDER)",
        )


def admin_auth(app: ASGIApp, settings: Settings) -> AdminAuth:
    """Wraps the admin application. Raises SettingsError if other machines could reach it without authentication."""
    tokens = AdminTokens.of(settings)
    if tokens is None:
        require_authentication(
            settings.admin_host,
            "AURUM_ADMIN_HOST",
            openness=settings.admin_open,
            name="AURUM_ADMIN_OPEN",
            instead="AURUM_ADMIN_TOKEN",
        )
    return AdminAuth(app, tokens, local=is_loopback(settings.admin_host))
