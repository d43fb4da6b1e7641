"""How the readings of many machines are asked for: in queries that ingestion answers in time, or not at all."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from aurum.prediction.model.features import TIME, FeatureSpec
from aurum.prediction.serving.readings_client import ReadingsClient
from aurum.readings.transport.query_columns import TOO_MANY_SERIES
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.grpc.client import Dependency
from aurum.v1 import ingestion_pb2


class Ingestion:
    """Ingestion with machines of so many sensors each; it remembers what it was asked."""

    def __init__(self, sensors: Mapping[str, int], *, counts: bool = True) -> None:
        self._sensors = sensors
        self._counts = counts
        self.queries: list[ingestion_pb2.QueryRequest] = []
        make = lambda *_, **__: SimpleNamespace()  # noqa: E731
        self.channel = SimpleNamespace(unary_unary=make, unary_stream=make, stream_unary=make, stream_stream=make)

    async def unary(self, method: Any, request: ingestion_pb2.GetMachineRequest) -> ingestion_pb2.GetMachineResponse:
        count = self._sensors[request.machine_id]
        machine = ingestion_pb2.Machine(machine_id=request.machine_id)
        if self._counts:
            machine.sensor_count = count
        else:
            machine.sensors.extend(ingestion_pb2.SensorState(sensor=f"s{number}") for number in range(count))
        return ingestion_pb2.GetMachineResponse(machine=machine)

    async def stream(self, method: Any, request: ingestion_pb2.QueryRequest) -> list[Any]:
        self.queries.append(request)
        return []

    def series(self, query: ingestion_pb2.QueryRequest) -> int:
        return sum(len(query.sensors) or self._sensors[machine] for machine in query.machine_ids)


async def asked(ingestion: Ingestion, machines: list[str], spec: FeatureSpec | None = None) -> None:
    reader = ReadingsClient(cast("Dependency", ingestion))
    await reader.machine_types(machines)
    await reader.latest(machines, spec)


@pytest.mark.parametrize("counts", [True, False], ids=["with counts", "of an earlier version"])
@pytest.mark.parametrize(("machines", "sensors"), [(100, 100), (1000, 10), (3, 3333), (7, 1), (50, 0)])
async def test_all_sensors_are_read_a_thousand_at_a_time(machines: int, sensors: int, counts: bool) -> None:
    """Each machine is in one query, and no query has more than a thousand series, unless they are of one machine."""
    names = [f"m-{number}" for number in range(machines)]
    ingestion = Ingestion(dict.fromkeys(names, sensors), counts=counts)
    await asked(ingestion, names)
    assert [name for query in ingestion.queries for name in query.machine_ids] == names
    for query in ingestion.queries:
        assert ingestion.series(query) <= 1000 or len(query.machine_ids) == 1
    assert len(ingestion.queries) <= 1 + machines * sensors / 500


async def test_sensors_of_a_model_are_read_for_many_machines() -> None:
    """Where a model says which sensors it needs, a query has as many machines as make a thousand series."""
    names = [f"m-{number}" for number in range(1000)]
    ingestion = Ingestion(dict.fromkeys(names, 100))
    spec = FeatureSpec(TIME, 1.0, tuple(f"s{number}" for number in range(10)))
    await asked(ingestion, names, spec)
    assert [len(query.machine_ids) for query in ingestion.queries] == [100] * 10


async def test_too_many_sensors_are_refused_before_reading() -> None:
    """Machines of which all sensors would be read for longer than callers wait are refused; one alone is not."""
    names = [f"m-{number}" for number in range(101)]
    ingestion = Ingestion(dict.fromkeys(names, 100))
    with pytest.raises(InvalidArgumentError, match=r"101 machines .* all 10100 sensors .* at most 10000") as refused:
        await asked(ingestion, names)
    assert refused.value.reason == TOO_MANY_SERIES
    assert ingestion.queries == []
    broad = Ingestion({"broad": 20_000})
    await asked(broad, ["broad"])
    assert len(broad.queries) == 1
