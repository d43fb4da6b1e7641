"""A device in the cluster: numbered readings to a gateway, each batch again until it is acknowledged; its last line is
the ledger.

TARGET (host:port), MACHINE, SECONDS, PAUSE (seconds between two batches), NOISE (values of a second sensor in each).
"""

import json
import os
import time

import grpc
import numpy as np

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

MACHINE, SECONDS, PAUSE = os.environ["MACHINE"], float(os.environ["SECONDS"]), float(os.environ["PAUSE"])
noise = np.random.default_rng(1).random(int(os.environ.get("NOISE", "0")))
started, again, sequence = time.time(), 0, 0
first = int(started) - 3600
options = [("grpc.dns_min_time_between_resolutions_ms", 500), ("grpc.max_reconnect_backoff_ms", 1000)]
with grpc.insecure_channel(os.environ["TARGET"], options) as channel:
    stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
    while time.time() < started + SECONDS:
        sequence += 1
        at = np.array([(first + sequence) * 1_000_000])
        series = [Series(MACHINE, "ledger", at, np.array([float(sequence)]))]
        if len(noise):
            series.append(Series(MACHINE, "noise", at + np.arange(len(noise)), noise))
        batch = encode(MACHINE, sequence, series)
        while True:
            try:
                stub.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=2)
                break
            except grpc.RpcError:
                again += 1
                time.sleep(0.2)
        time.sleep(PAUSE)
print(json.dumps({"acknowledged": sequence, "again": again, "start": first}))
