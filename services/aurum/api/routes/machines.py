"""Machines and their readings over time."""

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from aurum.api.context import Caller, Context
from aurum.api.idempotency import IdempotencyKey, key_reused
from aurum.api.long_answers import QueryPlace
from aurum.api.schemas import MachineDetail, MachineIn, MachineOut, MachinePage, MetricsOut
from aurum.api.scope import hidden_machine_error, resolve_site
from aurum.api.serializers import machine_detail, machine_out, parse_query_time
from aurum.api.series_json import encode_metrics
from aurum.runtime.audit import Act
from aurum.runtime.errors import REQUEST_ID_REUSED, AlreadyExistsError, InvalidArgumentError, NotFoundError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.v1 import ingestion_pb2

router = APIRouter(prefix="/api/machines", tags=["machines"])

_MAX_READINGS = 1_000_000  # in one answer


@router.get("")
async def list_machines(  # noqa: PLR0917 - query parameters
    context: Context,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(description="next_cursor of the previous page.")] = None,
    machine_type: Annotated[str, Query(description="Only machines of this type.")] = "",
    site: Annotated[str, Query(description="Only machines of this site.")] = "",
) -> MachinePage:
    """Returns machines in the order of their ids, with the risk of the latest background prediction."""
    response = await context.ingestion.list_machines(
        ingestion_pb2.ListMachinesRequest(
            page_size=limit,
            page_token=_decode_cursor(cursor),
            machine_type=machine_type,
            site=resolve_site(caller, site),
            omit_sensors=True,
        )
    )
    return MachinePage(
        items=[
            machine_out(machine, context.machine_cache.prediction_with_age(machine.machine_id))
            for machine in response.machines
        ],
        next_cursor=_encode_cursor(response.next_page_token),
    )


@router.post("", status_code=201)
async def register_machine(
    context: Context, caller: Caller, machine: MachineIn, response: Response, idempotency_key: IdempotencyKey
) -> MachineOut:
    """Registers a machine. Answers 409 if it is registered, unless a retry has the same Idempotency-Key.

    A caller that is bound to sites can register a machine that does not exist yet, or one that sends from the caller's
    own sources only. For any other machine the answer is 404, as for a machine that does not exist.
    """
    set_request_context(machine_id=machine.machine_id)
    site = resolve_site(caller, machine.site)
    registration = ingestion_pb2.RegisterMachineRequest(
        machine_id=machine.machine_id,
        machine_type=machine.machine_type,
        site=site,
        request_id=idempotency_key or "",
        owner=caller.owner if caller.sites else "",
    )

    async def register(act: Act) -> ingestion_pb2.Machine:
        try:
            registered = await context.ingestion.register_machine(registration)
        except NotFoundError as error:
            raise hidden_machine_error(machine.machine_id) from error
        except AlreadyExistsError as error:
            if caller.sites and not caller.may_see((await context.ingestion.get_machine(machine.machine_id)).site):
                raise hidden_machine_error(machine.machine_id) from error
            raise key_reused() if error.reason == REQUEST_ID_REUSED else error from error
        act.after = {"machine_type": machine.machine_type, "site": site}
        return registered

    registered = await context.audit.perform(caller, "machine.register", machine.machine_id, register)
    response.headers["Location"] = f"/api/machines/{registered.machine_id}"
    return machine_out(registered, context.machine_cache.prediction_with_age(registered.machine_id))


@router.get("/{machine_id}")
async def get_machine(context: Context, machine_id: str) -> MachineDetail:
    """Returns a machine with the latest reading of each sensor."""
    set_request_context(machine_id=machine_id)
    machine = await context.ingestion.get_machine(machine_id)
    return machine_detail(machine, context.machine_cache.prediction_with_age(machine_id))


@router.get("/{machine_id}/metrics", response_model=MetricsOut, dependencies=[QueryPlace])
async def machine_metrics(  # noqa: PLR0917 - query parameters
    context: Context,
    machine_id: str,
    sensor: Annotated[list[str] | None, Query(description="Sensors; may be repeated. By default all.")] = None,
    start: Annotated[str | None, Query(description="Start, inclusive; ISO 8601 or a number since 1970.")] = None,
    end: Annotated[str | None, Query(description="End, exclusive; ISO 8601 or a number since 1970.")] = None,
    points: Annotated[
        int, Query(ge=0, le=10_000, description="Maximum points of each series; 0 for all readings.")
    ] = 500,
) -> Response:
    """Returns readings of a machine.

    A series with more than `points` readings is reduced to mean, minimum, maximum and count of intervals. A query for
    more than a million readings is refused.
    """
    set_request_context(machine_id=machine_id)
    series = await context.ingestion.query_readings(
        ingestion_pb2.QueryRequest(
            machine_ids=[machine_id],
            sensors=sensor or [],
            start_us=parse_query_time("start", start),
            end_us=parse_query_time("end", end),
            points=points,
            max_readings=_MAX_READINGS,
        )
    )
    return StreamingResponse(encode_metrics(machine_id, series), media_type="application/json")


def _encode_cursor(token: str) -> str | None:
    return base64.urlsafe_b64encode(token.encode()).decode() if token else None


def _decode_cursor(cursor: str | None) -> str:
    try:
        return base64.urlsafe_b64decode(cursor or "").decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidArgumentError.for_field("cursor", "is not a cursor of this API") from error
