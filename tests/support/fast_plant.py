"""A plant whose time flies: the real console, served with a stream of events as fast as the page takes them.

Everything else that the page asks for is not there, which it has to bear as well.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from types import TracebackType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aurum.api.console_files import load_console
from tests.support.ports import free_port


class FastPlant:
    """machines: that report each second. seconds: of their life, after which the stream is quiet. passed: the share of
    it that was sent."""

    def __init__(self, machines: int, seconds: int) -> None:
        self._machines = machines
        self._seconds = seconds
        self._files = load_console()
        self._port = free_port()
        self.passed = 0.0
        routes = [
            Route("/", self._page),
            Route("/console/{path:path}", self._file),
            Route("/api/events", self._events),
            Route("/api/console", self._settings),
            Route("/api/today", self._today),
            Route("/api/session", self._session),
            Route("/api/machines/{machine_id}/alarm-limits", self._limits),
            Route("/api/machines/{machine_id}/metrics", self._metrics),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=self._port, log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="fast-plant", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def __enter__(self) -> "FastPlant":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(10)

    async def _page(self, request: Request) -> Response:
        return self._answer("index.html")

    async def _file(self, request: Request) -> Response:
        return self._answer(request.path_params["path"])

    def _answer(self, name: str) -> Response:
        found = self._files[name]
        return Response(found.content, media_type=found.media_type)

    async def _settings(self, request: Request) -> Response:
        features = {"predictive": True, "analytics": True, "energy": True, "carbon": True, "water": False}
        settings = {"version": "fast", "environment": "test", "features": features, "faults_enabled": False}
        return JSONResponse(
            {**settings, "traces_kept": False, "jaeger_url": None, "grafana_url": None, "logs_url": None}
        )

    async def _today(self, request: Request) -> Response:
        return JSONResponse({"energy_kwh": None, "carbon_kgco2e": None, "water_litres": None, "notes": []})

    async def _session(self, request: Request) -> Response:
        return JSONResponse({"asked": False, "user_id": "anonymous", "roles": ["admin"], "sites": []})

    async def _limits(self, request: Request) -> Response:
        return JSONResponse({"machine_id": request.path_params["machine_id"], "items": []})

    async def _metrics(self, request: Request) -> Response:
        times = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600 * ago)) for ago in range(23, 0, -1)]
        values = [number % 5 for number in range(len(times))]
        series = {"sensor": request.query_params["sensor"], "timestamps": times, "values": values}
        return JSONResponse({"machine_id": request.path_params["machine_id"], "series": [series]})

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._life(), media_type="text/event-stream")

    async def _life(self) -> AsyncIterator[bytes]:
        for second in range(self._seconds):
            at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            machines = _machines(self._machines, second, at)
            whole = "true" if second == 0 else "false"
            yield _event("machines", f'{{"machines":[{machines}],"total":{self._machines},"whole":{whole}}}')
            if second % 5 == 0:
                yield _pulse()
                counts = {"unacknowledged": second // 60 % 3}
                alarms = {"revision": second, "loaded": True, "counts": counts, "flood": False}
                yield _event("alarms", json.dumps(alarms))
            self.passed = (second + 1) / self._seconds
            await asyncio.sleep(0)
        while not self._server.should_exit:
            yield _pulse()
            await asyncio.sleep(1)


def _machines(count: int, second: int, at: str) -> str:
    """As JSON, of which there is so much that a library would take longer than the page."""
    lives = [500 - second / 3600 - age for age in range(50)]
    ruls = [f'{{"estimate":{life},"lower":{life - 40},"upper":{life + 60},"unit":"hours"}}' for life in lives]
    vibration, flow = 2 + second % 17 / 10, 120 - second % 5
    same = f'"machine_type":"pump","site":"plant-a","status":"running","last_seen":"{at}","anomaly_score":0.1'
    return ",".join(
        f'{{"machine_id":"pump-{number:03}",{same},"degraded":false,"rul":{ruls[number % 50]},'
        f'"risk_score":0.{(second * 7 + number * 13) % 1000:03},'
        f'"values":{{"vibration_mm_s":{vibration},"power_kw":{45 + number % 7},"flow_m3_h":{flow}}}}}'
        for number in range(count)
    )


def _pulse() -> bytes:
    return _event("pulse", json.dumps({"now": time.time() * 1000, "unreachable": [], "consoles": 1}))


def _event(name: str, content: str) -> bytes:
    return f"event: {name}\ndata: {content}\n\n".encode()
