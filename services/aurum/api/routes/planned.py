"""Routes whose content does not exist yet: they say so, rather than not be there."""

from fastapi import APIRouter

from aurum.runtime.errors import UnimplementedError

router = APIRouter()


def _refuse(what: str) -> UnimplementedError:
    return UnimplementedError(f"{what} is planned and not part of this version", reason="NOT_IMPLEMENTED")


@router.get("/api/alarms", tags=["alarms"], status_code=501)
async def list_alarms() -> None:
    """Planned: alarms by ISA-18.2."""
    raise _refuse("the list of alarms")


@router.post("/api/alarms/{alarm_id}/ack", tags=["alarms"], status_code=501)
async def acknowledge_alarm(alarm_id: str) -> None:
    """Planned."""
    raise _refuse("acknowledging alarms")


@router.post("/api/alarms/{alarm_id}/shelve", tags=["alarms"], status_code=501)
async def shelve_alarm(alarm_id: str) -> None:
    """Planned."""
    raise _refuse("shelving alarms")
