"""What `helm test` asks a release: is each service there, and do the answers come from where they should?"""

import json
import os
import sys
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

API = os.environ["API"]


def get(path):
    with urllib.request.urlopen(f"{API}{path}", timeout=10) as response:
        return json.load(response)


def check_api():
    assert get("/readyz")["status"] == "ready"
    assert get("/health")["status"] == "healthy"
    services = {service["service"]: service for service in get("/api/resilience")["services"]}
    for name in os.environ["SERVICES"].split(","):
        assert name in services, f"/api/resilience does not know {name}"
        assert services[name].get("reachable", True), f"{name} cannot be reached by the API: {services[name]}"
    print("the API answers, and reaches", ", ".join(sorted(services)))


def check_grpc():
    for target in os.environ["GRPC"].split(","):
        with grpc.insecure_channel(target) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, f"{target} does not serve"
        print(target, "serves")


if __name__ == "__main__":
    {"api": check_api, "grpc": check_grpc}[sys.argv[1]]()
