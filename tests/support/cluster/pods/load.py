"""Asks for predictions at a steady rate, from inside the cluster; its last line says what came back. SIGTERM ends it.

URL, RATE (requests/s), SECONDS; KEEPALIVE: connections that are kept for the next request; RETRY: whether a request
that failed on the way is made once more.
"""

import asyncio
import json
import os
import signal
import statistics
import time

import httpx

URL, RATE, SECONDS = os.environ["URL"], float(os.environ["RATE"]), float(os.environ["SECONDS"])
RETRY = os.environ.get("RETRY") == "1"
counts = {"requests": 0, "failed": 0, "degraded": 0, "retried": 0}
failures = {}
seconds = []


async def ask(client, machine):
    started = time.perf_counter()
    counts["requests"] += 1
    for attempt in (1, 2):
        try:
            answer = await client.post("/api/predict", json={"machine_id": machine})
            if answer.status_code == 200:
                counts["degraded"] += answer.json()["degraded"]
                seconds.append(time.perf_counter() - started)
                return
            reason = f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__} {error}"
        if not RETRY or attempt == 2:
            break
        counts["retried"] += 1
    counts["failed"] += 1
    failures[reason] = failures.get(reason, 0) + 1


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    kept = int(os.environ.get("KEEPALIVE", "20"))
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=kept, keepalive_expiry=5)
    async with httpx.AsyncClient(base_url=URL, timeout=10, limits=limits) as client:
        items = (await client.get("/api/machines?limit=100")).json()["items"]
        machines = [item["machine_id"] for item in items if item["machine_type"]]  # others have no model
        tasks = set()
        started = time.perf_counter()
        for number in range(int(RATE * SECONDS)):
            if stop.is_set():
                break
            await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            task = asyncio.create_task(ask(client, machines[number % len(machines)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    centiles = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else [0.0] * 99
    print(json.dumps({**counts, "failures": failures, "p50": centiles[49], "p95": centiles[94], "p99": centiles[98]}))


asyncio.run(main())
