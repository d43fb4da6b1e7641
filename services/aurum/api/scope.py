"""What a caller sees who is bound to sites: machines of others are as if they were not there."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from fastapi import Depends, Request

from aurum.api.context import ApiContext, Caller, Context
from aurum.runtime.errors import InvalidArgumentError, NotFoundError
from aurum.security.identity import Identity


class OfMachine(Protocol):
    @property
    def machine_id(self) -> str: ...


Item = TypeVar("Item", bound=OfMachine)


async def within_scope(request: Request, context: Context, caller: Caller) -> None:
    """For each route: raises NotFoundError if it is about a machine of another site."""
    if not caller.sites:
        return
    machine_id = request.path_params.get("machine_id")
    alarm_id = request.path_params.get("alarm_id")
    if machine_id is None and alarm_id is not None:
        machine_id = str(alarm_id).partition("~")[0]
    if machine_id is not None:
        await require_machine(context, caller, str(machine_id))


InScope = Depends(within_scope)


async def require_machine(context: ApiContext, caller: Identity, machine_id: str) -> None:
    """Raises NotFoundError if the machine is none of the caller's; AurumError if that cannot be found out."""
    if not caller.sites:
        return
    machine = context.plant.machine(machine_id)
    if machine is None or not machine.machine_type:  # it may have been registered since the plant was looked at
        try:
            machine = await context.ingestion.machine(machine_id)
        except NotFoundError as error:
            raise none_of_callers(machine_id) from error
    if not caller.may_see(machine.site):
        raise none_of_callers(machine_id)


def none_of_callers(machine_id: str) -> NotFoundError:
    """What a caller who is bound to sites is told of any machine but its own: the same whether there is one."""
    return NotFoundError(f"machine {machine_id} is not registered", reason="MACHINE_NOT_FOUND")


def site_to_ask(caller: Identity, site: str) -> str:
    """The site that a caller's question is about. Raises InvalidArgumentError if there is no telling, NotFoundError if
    it is none of the caller's."""
    if not caller.sites:
        return site
    if not site and len(caller.sites) == 1:
        return next(iter(caller.sites))
    if not site:
        raise InvalidArgumentError.of("site", f"must be one of {', '.join(sorted(caller.sites))}")
    if not caller.may_see(site):
        raise NotFoundError(f"there is no site {site!r}", reason="SITE_NOT_FOUND")
    return site


def of_callers(context: ApiContext, caller: Identity) -> Callable[[str], bool] | None:
    """Tells of a machine's id whether it is the caller's; None where all are."""
    if not caller.sites:
        return None

    def wanted(machine_id: str) -> bool:
        machine = context.plant.machine(machine_id)
        return machine is not None and caller.may_see(machine.site)

    return wanted


def visible(context: ApiContext, caller: Identity, items: Iterable[Item]) -> list[Item]:
    """Of items that name their machine, those whose machine is the caller's."""
    wanted = of_callers(context, caller)
    return [item for item in items if wanted is None or wanted(item.machine_id)]
