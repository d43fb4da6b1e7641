"""Visibility for callers that are bound to sites: machines of other sites appear not to exist."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from fastapi import Depends, Request

from aurum.api.alarm_groups import is_group
from aurum.api.context import ApiContext, Caller, Context
from aurum.runtime.errors import InvalidArgumentError, NotFoundError
from aurum.security.identity import Identity


class HasMachine(Protocol):
    """An item that concerns one machine."""

    @property
    def machine_id(self) -> str:
        """The id of the machine."""
        ...


Item = TypeVar("Item", bound=HasMachine)


async def within_scope(request: Request, context: Context, caller: Caller) -> None:
    """Raises NotFoundError if a route's machine or alarm belongs to a site that the caller may not see.

    This is a dependency of all routes.
    """
    if not caller.sites:
        return
    machine_id = request.path_params.get("machine_id")
    alarm_id = request.path_params.get("alarm_id")
    if machine_id is None and alarm_id is not None:
        machine_id = str(alarm_id).partition("~")[0]
        if is_group(machine_id):
            if not caller.may_see(context.alarm_service.site_of_group(machine_id) or ""):
                raise hidden_machine_error(machine_id)
            return
    if machine_id is not None:
        await require_machine(context, caller, str(machine_id))


InScope = Depends(within_scope)


async def require_machine(context: ApiContext, caller: Identity, machine_id: str) -> None:
    """Checks that the caller may see a machine.

    Raises:
        NotFoundError: The caller may not see the machine, or it does not exist.
        AurumError: The machine's site cannot be determined.
    """
    if not caller.sites:
        return
    machine = context.machine_cache.get_machine(machine_id)
    if machine is None or not machine.machine_type:  # it may have been registered since the machine cache was updated
        try:
            machine = await context.ingestion.get_machine(machine_id)
        except NotFoundError as error:
            raise hidden_machine_error(machine_id) from error
    if not caller.may_see(machine.site):
        raise hidden_machine_error(machine_id)


def hidden_machine_error(machine_id: str) -> NotFoundError:
    """Returns the error for a machine that a caller may not see. It does not reveal whether the machine exists."""
    return NotFoundError(f"machine {machine_id} is not registered", reason="MACHINE_NOT_FOUND")


def resolve_site(caller: Identity, site: str) -> str:
    """Returns the site to query: the requested one, or the caller's only site by default.

    Args:
        caller: Who makes the request.
        site: The requested site; empty if none is stated.

    Returns:
        The site. It is empty, for all sites, only if the caller is bound to none.

    Raises:
        InvalidArgumentError: The caller has several sites and stated none.
        NotFoundError: The caller may not see the site.
    """
    if not caller.sites:
        return site
    if not site and len(caller.sites) == 1:
        return next(iter(caller.sites))
    if not site:
        raise InvalidArgumentError.for_field("site", f"must be one of {', '.join(sorted(caller.sites))}")
    if not caller.may_see(site):
        raise NotFoundError(f"there is no site {site!r}", reason="SITE_NOT_FOUND")
    return site


def visibility_filter(context: ApiContext, caller: Identity) -> Callable[[str], bool] | None:
    """Returns a predicate for the ids of machines that the caller may see, or None if it may see all."""
    if not caller.sites:
        return None

    def is_visible(machine_id: str) -> bool:
        if is_group(machine_id):  # of the entries of alarms only
            return caller.may_see(context.alarm_service.site_of_group(machine_id) or "")
        machine = context.machine_cache.get_machine(machine_id)
        return machine is not None and caller.may_see(machine.site)

    return is_visible


def visible_items(context: ApiContext, caller: Identity, items: Iterable[Item]) -> list[Item]:
    """Returns the items whose machine the caller may see."""
    is_visible = visibility_filter(context, caller)
    return [item for item in items if is_visible is None or is_visible(item.machine_id)]
