"""Asks for many paths that do not exist and sends readings of many machines; its last line says how many.

URL, PATHS, MACHINES.
"""

import json
import os
import random
import time

import httpx

URL, PATHS, MACHINES = os.environ["URL"], int(os.environ["PATHS"]), int(os.environ["MACHINES"])
stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
with httpx.Client(base_url=URL, timeout=20) as client:
    for _ in range(PATHS):
        answer = client.get(f"/{random.getrandbits(64):x}/{random.getrandbits(32):x}")
        assert answer.status_code == 404, answer
    for start in range(0, MACHINES, 1000):
        readings = [
            {"machine_id": f"many-{number}", "sensor": "s", "timestamp": stamp, "value": 1.0}
            for number in range(start, start + 1000)
        ]
        answer = client.post("/api/readings", json={"readings": readings})
        assert answer.status_code == 200, answer.text[:500]
print(json.dumps({"paths": PATHS, "machines": MACHINES}))
