"""The largest requests of each RPC of each server."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import numpy as np
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, prediction_pb2
from tests.support.contracts import rpcs
from tests.support.costs.cases import Case
from tests.support.costs.plant import BROAD, LONG, CostPlant

MESSAGE = 16_000_000 - 5000  # bytes of the largest message, with room for what a gateway adds
BATCH = 8_000_000 - 5000  # bytes of the largest message with a batch
SMALL_MESSAGE = 1_000_000  # bytes of the largest message of a method that takes no long columns
EVENTS = PREDICTIONS = 4_000_000  # bytes of a request with events, or with predictions to make
INGESTION, PREDICTION = "/aurum.v1.IngestionService", "/aurum.v1.PredictionService"
SERVERS = {"ingestion": INGESTION, "edge": INGESTION, "prediction": PREDICTION}
_DESCRIBED = rpcs()
_sequences = itertools.count(1)

# Makes the requests of a call; those that are bytes are sent as they are
Requests = Callable[[CostPlant, int], Iterable[Any]]
# Whether a stream of answers has told everything, after an answer
Told = Callable[[CostPlant, Any], bool]


def call(
    name: str, requests: Requests, *expected: str, told: Callable[[], Told] | None = None
) -> Callable[[str, str], Case]:
    """A case of a method, for a server and the method's full name. Without `told` a call is read to its end."""

    def of(server: str, rpc: str) -> Case:
        def ask(plant: CostPlant, number: int) -> str:
            return _outcome(plant, server, rpc, requests(plant, number), told() if told else None)

        return Case(name, ask, frozenset(expected or ("OK",)))

    return of


def _outcome(plant: CostPlant, server: str, rpc: str, requests: Iterable[Any], told: Told | None) -> str:
    method = _DESCRIBED[rpc]
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    response = message_factory.GetMessageClass(method.output_type)
    stub = getattr(plant.channel(server), kind)(rpc, _serialized, response.FromString)
    try:
        sent = iter(requests) if method.client_streaming else next(iter(requests))
        answer = stub(sent, timeout=90)
        if method.server_streaming:
            for each in answer:
                if told is not None and told(plant, each):
                    answer.cancel()
                    break
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _serialized(request: Any) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def one(make: Callable[[CostPlant, int], Any]) -> Requests:
    return lambda plant, number: [make(plant, number)]


def repeated(part: bytes, head: bytes = b"", size: int = MESSAGE) -> Requests:
    """A message of one field again and again."""
    return lambda plant, number: [head + part * ((size - len(head)) // len(part))]


def field(number: int, content: bytes) -> bytes:
    """A field of a message that is length-delimited, and shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def whole(content: bytes, number: int = 1) -> bytes:
    """A message with one field only, which is a message or text."""
    length, left = b"", len(content)
    while left > 0x7F:
        length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + content


def long_batch(plant: CostPlant, number: int) -> ingestion_pb2.Batch:
    at = plant.started_us + np.arange(200_000, dtype=np.int64)
    values = np.random.default_rng(number).random(len(at))
    return encode("cost-long", next(_sequences), [Series("cost", "s", at, values)])


def wide_batch(plant: CostPlant, number: int) -> ingestion_pb2.Batch:
    column = np.array([plant.started_us], np.int64), np.array([1.0])
    series = [Series(f"w{n:03}", f"{'w' * 38}{k:02}", *column) for n in range(400) for k in range(50)]
    return encode("cost-wide", next(_sequences), series)


def unpacked_batch(plant: CostPlant, number: int) -> bytes:
    """A batch whose times and values are single numbers, which the format allows: more than a batch may have."""
    size = (BATCH - 100) // 18
    series = field(1, b"cost") + field(2, b"s") + (b"\x19" + bytes(8)) * size + (b"\x21" + bytes(8)) * size
    batch = field(1, b"cost-unpacked") + b"\x10\x01" + b"\x1a" + whole(series)[1:]
    return whole(batch)


def empty_series(plant: CostPlant, number: int) -> bytes:
    return whole(field(1, b"cost-empty") + b"\x10\x01" + b"\x1a\x00" * (BATCH // 2 - 50))


def beyond(plant: CostPlant, number: int) -> bytes:
    return whole(bytes(MESSAGE))


def batches(*makers: Callable[[CostPlant, int], Any]) -> Requests:
    """Four requests with each of these batches."""

    def make(plant: CostPlant, number: int) -> Iterator[Any]:
        for index in range(4):
            for maker in makers:
                batch = maker(plant, 4 * number + index)
                yield batch if isinstance(batch, bytes) else ingestion_pb2.IngestRequest(batch=batch)

    return make


def query(**asked: Any) -> Requests:
    return one(
        lambda plant, _: ingestion_pb2.QueryRequest(
            **{name: value(plant) if callable(value) else value for name, value in asked.items()}
        )
    )


def integrate(**asked: Any) -> Requests:
    """Asks for what meters measured in the first four hours of the readings of long machines."""
    given: dict[str, Any] = {"meters": [ingestion_pb2.Meter(sensor="s0")], "longest_gap_us": 1_200_000_000} | asked

    def request(plant: CostPlant, _: int) -> ingestion_pb2.IntegrateRequest:
        fields = {name: value(plant) if callable(value) else value for name, value in given.items()}
        end = plant.started_us + 4 * 3600 * 1_000_000
        return ingestion_pb2.IntegrateRequest(start_us=plant.started_us, end_us=end, **fields)

    return one(request)


def all_seen() -> Told:
    """Whether the answers of a stream have had every machine."""
    seen: set[str] = set()

    def told(plant: CostPlant, answer: ingestion_pb2.WatchResponse) -> bool:
        seen.update(machine.machine_id for machine in answer.machines)
        return len(seen) > 2 * plant.size.machines

    return told


def first() -> Told:
    return lambda plant, answer: True


def events(plant: CostPlant, number: int) -> Iterator[Any]:
    """As many events as a request may have, of as many bytes."""
    content = b"x" * (EVENTS // 1000 - 100)
    kept = [
        ingestion_pb2.Event(
            kind="cost", machine_id="cost", at_us=plant.started_us + n, id=f"{number}-{n}", content=content
        )
        for n in range(1000)
    ]
    yield ingestion_pb2.RecordEventsRequest(events=kept)


def published(plant: CostPlant, number: int) -> Iterator[Any]:
    """Predictions of as many machines as a request may have, of as many bytes."""
    reason = "x" * (EVENTS // 1000 - 100)
    yield ingestion_pb2.PublishPredictionsRequest(
        predictions=[
            prediction_pb2.PredictResponse(
                machine_id=machine, as_of_us=plant.started_us + number, degraded_reason=reason
            )
            for machine in plant.wide(1000)
        ]
    )


def to_predict(count: Callable[[CostPlant], int]) -> Requests:
    """Machines with many sensors each."""

    def make(plant: CostPlant, number: int) -> Iterator[Any]:
        machines = plant.wide(count(plant))
        asked = [prediction_pb2.PredictRequest(machine_id=machine) for machine in machines]
        yield prediction_pb2.PredictBatchRequest(requests=asked)

    return make


def features(count: int) -> dict[str, float]:
    return {f"feature.{number:06}": 1.5 for number in range(count)}


def rows(plant: CostPlant, number: int) -> Iterator[Any]:
    """As many rows as a request may have, of features that the model knows."""
    with_names = prediction_pb2.ExplainRequest(
        request=prediction_pb2.PredictRequest(machine_type="pump", features={"age": 1.0}), top=1
    )
    stub = plant.channel("prediction").unary_unary(
        f"{PREDICTION}/Explain", _serialized, prediction_pb2.ExplainResponse.FromString
    )
    names = sorted(stub(with_names, timeout=20).features)
    values = np.ones((4096, len(names)), "<f8").tobytes()
    yield prediction_pb2.PredictBatchRequest(
        rows=prediction_pb2.FeatureRows(machine_type="pump", features=names, values=values)
    )


def register(plant: CostPlant, number: int) -> ingestion_pb2.RegisterMachineRequest:
    return ingestion_pb2.RegisterMachineRequest(machine_id="a" * (SMALL_MESSAGE - 20), machine_type="t")


_NAME = field(1, b"a" * 20)
RPCS: dict[str, list[Callable[[str, str], Case]]] = {
    f"{INGESTION}/Ingest": [
        call("longest batches", batches(long_batch)),
        call("widest batches", batches(wide_batch)),
        call("single numbers", batches(unpacked_batch), "INVALID_ARGUMENT"),
        call("empty series", batches(empty_series), "INVALID_ARGUMENT"),
        call("beyond the limit", batches(beyond), "INVALID_ARGUMENT"),
    ],
    f"{INGESTION}/Write": [
        call("longest batch", one(lambda *which: ingestion_pb2.WriteRequest(batch=long_batch(*which)))),
        call("widest batch", one(lambda *which: ingestion_pb2.WriteRequest(batch=wide_batch(*which)))),
        call("single numbers", one(unpacked_batch), "INVALID_ARGUMENT"),
        call("empty series", one(empty_series), "INVALID_ARGUMENT"),
        call("beyond the limit", one(beyond), "INVALID_ARGUMENT"),
    ],
    f"{INGESTION}/Query": [
        call("every reading", query(machine_ids=lambda plant: plant.long)),
        call("most points", query(machine_ids=lambda plant: plant.long, points=100_000)),
        call(
            "most series",
            query(machine_ids=lambda plant: plant.wide(20_000 // plant.size.sensors), last=256),
        ),
        call("most sensors", query(machine_ids=[BROAD], last=256)),
        call(
            "many sensor names",
            repeated(field(2, b"a" * 20), b"".join(field(1, b"m-%04d" % n) for n in range(900)), SMALL_MESSAGE),
            "INVALID_ARGUMENT",
        ),
        call("many machines", repeated(_NAME, size=SMALL_MESSAGE), "INVALID_ARGUMENT"),
        call("beyond the limit", repeated(b"\x0a\x00"), "INVALID_ARGUMENT"),
    ],
    f"{INGESTION}/Integrate": [
        call("most intervals", integrate(machine_ids=lambda plant: plant.long, width_us=60_000_000)),
        call(
            "most series",
            integrate(
                machine_ids=lambda plant: plant.wide(1000),
                meters=[ingestion_pb2.Meter(sensor=f"{'s' * 36}{number:04}") for number in range(16)],
            ),
        ),
        call("many machines", repeated(_NAME, size=SMALL_MESSAGE), "INVALID_ARGUMENT"),
        call("beyond the limit", repeated(b"\x0a\x00"), "INVALID_ARGUMENT"),
    ],
    f"{INGESTION}/RegisterMachine": [
        call("long name", one(register), "INVALID_ARGUMENT"),
        call("beyond the limit", repeated(b"\x0a\x00"), "INVALID_ARGUMENT"),
    ],
    f"{INGESTION}/GetMachine": [
        call("most sensors", one(lambda *_: ingestion_pb2.GetMachineRequest(machine_id=BROAD))),
        call(
            "long name",
            one(lambda *_: ingestion_pb2.GetMachineRequest(machine_id="a" * (SMALL_MESSAGE - 20))),
            "NOT_FOUND",
        ),
    ],
    f"{INGESTION}/ListMachines": [
        call("most machines", one(lambda *_: ingestion_pb2.ListMachinesRequest(page_size=1000))),
        call("without sensors", one(lambda *_: ingestion_pb2.ListMachinesRequest(page_size=1000, omit_sensors=True))),
        call("long filters", one(lambda *_: ingestion_pb2.ListMachinesRequest(site="a" * (SMALL_MESSAGE - 20)))),
    ],
    f"{INGESTION}/Watch": [
        call("every machine", one(lambda *_: ingestion_pb2.WatchRequest(interval_ms=1000)), told=all_seen),
        call("many names", repeated(_NAME, size=SMALL_MESSAGE), "OK", "INVALID_ARGUMENT", told=first),
    ],
    f"{INGESTION}/Follow": [
        call(
            "most members",
            one(
                lambda *_: ingestion_pb2.FollowRequest(members=[f"member-{n}" for n in range(1000)], member="member-0")
            ),
            "OK",
            "UNIMPLEMENTED",  # by a gateway
            told=first,
        ),
        call("many names", repeated(_NAME, size=SMALL_MESSAGE), "INVALID_ARGUMENT", "UNIMPLEMENTED"),
        call(
            "long position",
            one(lambda *_: ingestion_pb2.FollowRequest(position="9" * (SMALL_MESSAGE - 20))),
            "INVALID_ARGUMENT",
            "UNIMPLEMENTED",
        ),
    ],
    f"{INGESTION}/ListEvents": [
        call(
            "longest history",
            one(lambda *_: ingestion_pb2.ListEventsRequest(kind="cost", machine_id="cost", limit=1000)),
        ),
        call(
            "longest journal", one(lambda *_: ingestion_pb2.ListEventsRequest(kind="alarm", by_number=True, limit=1000))
        ),
        call(
            "long token",
            one(lambda *_: ingestion_pb2.ListEventsRequest(kind="alarm", page_token="9" * (SMALL_MESSAGE - 20))),
            "INVALID_ARGUMENT",
        ),
    ],
    f"{INGESTION}/RecordEvents": [
        call("most events", events),
        call("empty events", repeated(b"\x0a\x00", size=EVENTS), "INVALID_ARGUMENT"),
        call("beyond the limit", repeated(b"\x0a\x00"), "INVALID_ARGUMENT"),
    ],
    f"{INGESTION}/PublishPredictions": [
        call("most predictions", published),
        call("empty predictions", repeated(b"\x0a\x00", size=EVENTS), "INVALID_ARGUMENT"),
        call("beyond the limit", repeated(b"\x0a\x00"), "INVALID_ARGUMENT"),
    ],
    f"{PREDICTION}/Predict": [
        call("most sensors", one(lambda *_: prediction_pb2.PredictRequest(machine_id=BROAD))),
        call(
            "most readings", one(lambda *_: prediction_pb2.PredictRequest(machine_id=LONG)), "OK", "FAILED_PRECONDITION"
        ),
        call(
            "many features",
            one(lambda *_: prediction_pb2.PredictRequest(machine_type="pump", features=features(30_000))),
            "INVALID_ARGUMENT",
        ),
        call("beyond the limit", repeated(field(3, field(1, b"a") + b"\x11" + bytes(8))), "INVALID_ARGUMENT"),
    ],
    f"{PREDICTION}/PredictBatch": [
        call("most sensors", to_predict(lambda plant: 10_000 // plant.size.sensors)),
        call("most machines", to_predict(lambda plant: 1000), "OK", "INVALID_ARGUMENT"),
        call("most rows", rows),
        call("empty requests", repeated(b"\x0a\x00", size=PREDICTIONS), "INVALID_ARGUMENT"),
        call("beyond the limit", repeated(b"\x0a\x00"), "INVALID_ARGUMENT"),
        call(
            "many features",
            one(
                lambda *_: prediction_pb2.PredictBatchRequest(
                    requests=[prediction_pb2.PredictRequest(machine_type="pump", features=features(500))] * 290
                )
            ),
        ),
        call("many names", one(lambda *_: whole(b"\x12\x00" * (MESSAGE // 2 - 10), 2)), "INVALID_ARGUMENT"),
    ],
    f"{PREDICTION}/Explain": [
        call(
            "most sensors",
            one(
                lambda *_: prediction_pb2.ExplainRequest(
                    request=prediction_pb2.PredictRequest(machine_id=BROAD), top=200
                )
            ),
        ),
        call(
            "many features",
            one(
                lambda *_: prediction_pb2.ExplainRequest(
                    request=prediction_pb2.PredictRequest(machine_type="pump", features=features(30_000))
                )
            ),
            "INVALID_ARGUMENT",
        ),
    ],
    f"{PREDICTION}/ListModels": [call("all models", one(lambda *_: prediction_pb2.ListModelsRequest()))],
    f"{PREDICTION}/GetModel": [
        call("one model", one(lambda *_: prediction_pb2.GetModelRequest(machine_type="pump"))),
        call(
            "long name",
            one(lambda *_: prediction_pb2.GetModelRequest(machine_type="a" * (SMALL_MESSAGE - 20))),
            "NOT_FOUND",
        ),
    ],
    f"{PREDICTION}/ActivateModel": [
        call(
            "long name",
            one(
                lambda *_: prediction_pb2.ActivateModelRequest(machine_type="pump", version="a" * (SMALL_MESSAGE - 30))
            ),
            "NOT_FOUND",
        )
    ],
    f"{PREDICTION}/RollbackModel": [
        call(
            "long name",
            one(lambda *_: prediction_pb2.RollbackModelRequest(machine_type="a" * (SMALL_MESSAGE - 20))),
            "NOT_FOUND",
            "FAILED_PRECONDITION",
        )
    ],
    "/grpc.health.v1.Health/Check": [
        call("long name", one(lambda *_: health_pb2.HealthCheckRequest(service="a" * MESSAGE)), "NOT_FOUND")
    ],
    "/grpc.health.v1.Health/Watch": [
        call(
            "long name",
            one(lambda *_: health_pb2.HealthCheckRequest(service="a" * MESSAGE)),
            "INVALID_ARGUMENT",
        )
    ],
    "/grpc.health.v1.Health/List": [
        call("all services", one(lambda *_: health_pb2.HealthListRequest()), "OK", "UNIMPLEMENTED")
    ],
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": [
        call(
            "many questions",
            lambda *_: (
                [reflection_pb2.ServerReflectionRequest(file_containing_symbol="aurum.v1.IngestionService")] * 1000
            ),
        ),
        call(
            "long name",
            one(lambda *_: reflection_pb2.ServerReflectionRequest(file_containing_symbol="a" * (SMALL_MESSAGE - 20))),
        ),
    ],
}
"""By full name."""

PLACES = [
    (server, name)
    for server, own in SERVERS.items()
    for name in RPCS
    if name.startswith(own) or not name.startswith("/aurum.")
]
"""Each server with each RPC that it answers."""
