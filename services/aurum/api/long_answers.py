"""Limits on long or endless answers. Each caller may use a share of the places."""

import contextlib
from collections.abc import AsyncIterator, Generator

from fastapi import Depends, Request

from aurum.api.context import ApiContext, Caller, Context
from aurum.api.middleware import caller_of
from aurum.runtime.errors import ResourceExhaustedError
from aurum.runtime.grpc.stream_shares import Kind
from aurum.security.identity import Identity


async def _event_place(request: Request, context: Context, caller: Caller) -> AsyncIterator[None]:
    with _hold_place("events", request, context, caller):
        yield


async def _query_place(request: Request, context: Context, caller: Caller) -> AsyncIterator[None]:
    with _hold_place("query", request, context, caller):
        yield


# The place is released when the answer has been sent, or the client has disconnected
EventPlace = Depends(_event_place)
QueryPlace = Depends(_query_place)


@contextlib.contextmanager
def _hold_place(kind: Kind, request: Request, context: ApiContext, caller: Identity) -> Generator[None]:
    with contextlib.ExitStack() as place:
        try:
            place.enter_context(context.stream_shares.place(kind, caller_of(request.scope, caller)))
        except ResourceExhaustedError:
            request.state.beyond_own_share = True  # keeps the refusal from counting as overload
            raise
        yield
