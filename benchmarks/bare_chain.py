"""The three services of a prediction with nothing but their work: what the platform's way is compared with.

FastAPI → grpc.aio → grpc.aio, as their tutorials show it: the routes, messages, features and model of the platform,
without telemetry, policies, admission, deadlines, authorization or a store. Readings are in memory, and are sent as
the platform sends them. `python -m benchmarks.bare_chain SERVICE FOLDER LOOP` runs one of the services.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvicorn
from fastapi import FastAPI

from aurum.api.schemas import PredictIn, PredictionOut
from aurum.api.serializers import prediction_out
from aurum.ingestion.query_answer import QueryAnswer
from aurum.ingestion.store import Points
from aurum.prediction.model.features import features_of_windows, steps_of, window_of
from aurum.prediction.model.model import load_model
from aurum.prediction.model.model_files import read_serving
from aurum.readings.transport.query_columns import decode_columns, query_method
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.v1 import ingestion_pb2, prediction_pb2, prediction_pb2_grpc

MOST_BYTES = 4_000_000


class Ingestion:
    """Answers Query from a file of readings: for each machine and sensor, times and values."""

    def __init__(self, folder: Path) -> None:
        self._readings: dict[str, dict[str, Points]] = {}
        with np.load(folder / "readings.npz") as file:
            for name in file.files:
                machine_id, sensor = name.split("|")
                times, values = file[name]
                points = Points(times.astype(np.int64), values)
                self._readings.setdefault(machine_id, {})[sensor] = points

    async def query(self, request: ingestion_pb2.QueryRequest, context: Any) -> AsyncIterator[Any]:
        for machine_id in request.machine_ids:
            series = self._readings[machine_id]
            answer = QueryAnswer(10_000_000, MOST_BYTES)
            for sensor in sorted(request.sensors):
                points = series[sensor]
                last = Points(points.timestamps[-request.last :], points.values[-request.last :])
                answer.add_series(machine_id, sensor, last)
            yield answer.take_message()


class Prediction(prediction_pb2_grpc.PredictionServiceServicer):
    """Predicts pumps from as many readings as the platform asks for."""

    def __init__(self, folder: Path, target: str, last: int) -> None:
        serving = read_serving(folder / "models", "pump")
        assert serving is not None
        self._model = load_model(folder / "models" / "pump" / serving.version)
        self._query = query_method(grpc.aio.insecure_channel(target))
        self._last = last

    async def Predict(  # noqa: N802
        self, request: prediction_pb2.PredictRequest, context: Any
    ) -> prediction_pb2.PredictResponse:
        model = self._model
        query = ingestion_pb2.QueryRequest(
            machine_ids=[request.machine_id], sensors=model.spec.queried, last=self._last
        )
        responses = [response async for response in self._query(query, timeout=5)]
        columns = {
            series.sensor: (times, values)
            for series, times, values in decode_columns(chain.from_iterable(each.series for each in responses))
        }
        result = model.predict(features_of_windows([window_of(steps_of(columns, model.spec))]))
        assert result.risk is not None
        assert result.rul is not None
        assert result.quantiles is not None
        quantiles = result.quantiles[0].tolist()
        return prediction_pb2.PredictResponse(
            machine_id=request.machine_id,
            machine_type="pump",
            model_version=model.card.version,
            risk_score=float(result.risk[0]),
            anomaly_score=float(result.anomaly[0]),
            as_of_us=max(int(times[-1]) for times, _ in columns.values()),
            inputs_sha256="0123456789abcdef",
            rul=prediction_pb2.Rul(
                estimate=float(result.rul[0]),
                lower=quantiles[0],
                upper=quantiles[-1],
                unit=model.card.unit,
                quantiles=quantiles,
                cap=model.card.rul_cap,
            ),
        )


def api(target: str) -> FastAPI:
    app = FastAPI()
    stubs: list[prediction_pb2_grpc.PredictionServiceStub] = []

    @app.post("/api/predict")
    async def predict(body: PredictIn) -> PredictionOut:
        if not stubs:
            stubs.append(prediction_pb2_grpc.PredictionServiceStub(grpc.aio.insecure_channel(target)))
        request = prediction_pb2.PredictRequest(machine_id=body.machine_id or "")
        return prediction_out(await stubs[0].Predict(request, timeout=5))

    return app


async def serve(service: str, folder: Path) -> None:
    server = grpc.aio.server()
    if service == "ingestion":
        handler = grpc.unary_stream_rpc_method_handler(
            Ingestion(folder).query,
            request_deserializer=ingestion_pb2.QueryRequest.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(INGESTION_SERVICE, {"Query": handler}),))
    else:
        servicer = Prediction(folder, f"127.0.0.1:{os.environ['BARE_INGESTION']}", int(os.environ["BARE_LAST"]))
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{os.environ[f'BARE_{service.upper()}']}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    service, folder, loop = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if service == "api":
        port = int(os.environ["BARE_API"])
        app = api(f"127.0.0.1:{os.environ['BARE_PREDICTION']}")
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, loop=loop)
        return
    if loop == "uvloop":
        import uvloop

        uvloop.run(serve(service, Path(folder)))
    else:
        asyncio.run(serve(service, Path(folder)))


if __name__ == "__main__":
    main()
