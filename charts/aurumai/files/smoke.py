"""The checks of `helm test`: each service is up, and the API reaches it.

The pods of a new release are ready before they have connected to each other, so a check is repeated for a while before
it counts as failed.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

API = os.environ["API"]
PATIENCE = 30.0  # seconds


def get(path):
    """Returns the JSON answer of a route of the API."""
    with urllib.request.urlopen(f"{API}{path}", timeout=10) as response:
        return json.load(response)


def status(path):
    """Returns the HTTP status code of a route of the API."""
    try:
        with urllib.request.urlopen(f"{API}{path}", timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def check_api():
    """Checks the API and its connections to the other services. Raises AssertionError if one is not available."""
    assert get("/readyz")["status"] == "ready"
    assert get("/health")["status"] == "healthy"
    if os.environ.get("CLOSED") == "1":
        assert status("/api/resilience") == 401, "the API answers callers without credentials"
        print("the API is healthy and requires authentication")
        return
    services = {service["service"]: service for service in get("/api/resilience")["services"]}
    for name in os.environ["SERVICES"].split(","):
        assert name in services, f"/api/resilience does not know {name}"
        assert services[name].get("reachable", True), f"{name} cannot be reached by the API: {services[name]}"
    print("the API answers, and reaches", ", ".join(sorted(services)))


def channel_to(target):
    """Opens a gRPC channel, with the mounted client certificate if there is one."""
    if "TLS" not in os.environ:
        return grpc.insecure_channel(target)
    authority, key, chain = (Path(os.environ["TLS"], name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authority, key, chain))


def check_grpc():
    """Checks the health of each gRPC server. Raises AssertionError or RpcError if one does not serve."""
    for target in os.environ["GRPC"].split(","):
        with channel_to(target) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, f"{target} does not serve"
        print(target, "serves")


def main(check):
    """Repeats a check until it succeeds. Raises its last error after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return check()
        except (AssertionError, OSError, grpc.RpcError) as error:
            if time.monotonic() > deadline:
                raise
            print(f"check failed, next attempt in 2 s: {error}", file=sys.stderr)
            time.sleep(2)


if __name__ == "__main__":
    main({"api": check_api, "grpc": check_grpc}[sys.argv[1]])
