"""Refuses query parameters that a route does not have, so that a misspelt filter does not select everything."""

import difflib
from collections.abc import Iterator
from typing import Any

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from aurum.runtime.errors import FieldViolation, InvalidArgumentError

_PREFIX = "/api/"  # pages and probes accept any parameters
_MAX_NAMED = 5  # unknown parameters in one answer
_MAX_CHARACTERS = 100  # of the name of one


async def known_parameters(request: Request) -> None:
    """Raises InvalidArgumentError if a request has query parameters that its route does not have.

    This is a dependency of all routes.
    """
    route: Any = request.scope.get("route")
    if not request.scope["query_string"] or not isinstance(route, APIRoute) or not route.path.startswith(_PREFIX):
        return
    known = sorted(set(_parameters_of(route.dependant)))
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise InvalidArgumentError(
            _refusal(unknown[0], known),
            violations=[
                FieldViolation(f"query.{name[:_MAX_CHARACTERS]}", _refusal(name, known))
                for name in unknown[:_MAX_NAMED]
            ],
        )


KnownParameters = Depends(known_parameters)


def _parameters_of(dependant: Dependant) -> Iterator[str]:
    """Yields the names of the query parameters of a route and of its dependencies."""
    for parameter in dependant.query_params:
        yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _parameters_of(dependency)


def _refusal(name: str, known: list[str]) -> str:
    name = name[:_MAX_CHARACTERS]
    if not known:
        return f"there is no query parameter {name!r}; this route has none"
    similar = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {similar[0]}" if similar else f"this route has {', '.join(known)}"
    return f"there is no query parameter {name!r}; {hint}"
