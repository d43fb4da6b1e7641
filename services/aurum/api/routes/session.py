"""Sign-in to the console with a key or token. The session is kept in a cookie that scripts cannot read."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers

from aurum.api.context import Caller, Context
from aurum.runtime.errors import FailedPreconditionError, UnauthenticatedError
from aurum.security.api_keys import PREFIX
from aurum.security.identity import Identity
from aurum.security.permissions import allowed_changes
from aurum.security.sessions import COOKIE, session_id

router = APIRouter(prefix="/api/session", tags=["system"])


class SignInIn(BaseModel):
    """The credential of a sign-in."""

    model_config = ConfigDict(extra="forbid")

    credential: str = Field(min_length=1, max_length=16_384, description="An API key or a bearer token.")


class SessionOut(BaseModel):
    """The identity of the caller."""

    asked: bool = Field(description="Whether callers are authenticated.")
    user_id: str | None
    roles: list[str]
    sites: list[str]
    changes: list[str] = Field(description="Changes that the caller may make, as method and path template.")


@router.get("")
async def who_am_i(context: Context, caller: Caller) -> SessionOut:
    """Returns the identity of the caller with its roles and sites."""
    return _session_out(context.access_control.authenticates, caller)


@router.post("")
async def sign_in(context: Context, request: Request, response: Response, body: SignInIn) -> SessionOut:
    """Starts a session. Answers 401 if the key or token is not valid."""
    access_control = context.access_control
    if access_control.sessions is None:
        raise FailedPreconditionError("callers are not authenticated in this installation", reason="AUTH_OFF")
    name = "x-api-key" if body.credential.startswith(f"{PREFIX}_") else "authorization"
    value = body.credential if name == "x-api-key" else f"Bearer {body.credential}"
    if not value.isascii():
        raise UnauthenticatedError("the token is not a JWT")
    address = request.client.host if request.client else ""
    identity = await access_control.identify(Headers({name: value}), "GET", address)
    response.set_cookie(
        COOKIE,
        access_control.sessions.begin(identity),
        max_age=access_control.sessions.seconds,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https",
        path="/",
    )
    context.audit.record(identity, "session.begin", identity.user_id)
    return _session_out(True, identity)


@router.delete("", status_code=204)
async def sign_out(context: Context, request: Request, response: Response) -> None:
    """Ends the session in this browser and at every replica."""
    cookie = request.cookies.get(COOKIE)
    sessions = context.access_control.sessions
    session = sessions.identify(cookie) if cookie is not None and sessions is not None else None
    if cookie is not None and session is not None:
        context.ended_sessions.end(session_id(cookie), session.until)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


def _session_out(authenticated: bool, identity: Identity) -> SessionOut:
    return SessionOut(
        asked=authenticated,
        user_id=identity.user_id if identity.roles else None,
        roles=sorted(role.value for role in identity.roles),
        sites=sorted(identity.sites),
        changes=allowed_changes(identity),
    )
