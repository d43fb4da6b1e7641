"""A device that sends a temperature every second: python examples/device.py HOST:PORT MACHINE [READINGS]."""

import itertools
import random
import sys
import time

import grpc

from aurum.v1 import ingestion_pb2 as pb
from aurum.v1.ingestion_pb2_grpc import IngestionServiceStub


def main(address: str, machine: str, readings: int) -> None:
    """Sends `readings` batches of one reading each; 0 sends until interrupted."""
    source = f"{machine}-{time.time_ns()}"  # a new source, since this device does not remember its sequence
    with grpc.insecure_channel(address) as channel:
        ingestion = IngestionServiceStub(channel)
        for sequence in itertools.islice(itertools.count(1), readings or None):
            now_us, value = time.time_ns() // 1000, 60 + random.gauss(0, 0.5)
            series = pb.Series(machine_id=machine, sensor="temperature", timestamps_us=[now_us], values=[value])
            request = pb.WriteRequest(batch=pb.Batch(source_id=source, sequence=sequence, series=[series]))
            while True:  # a batch that is sent twice is stored once, so repeating it is safe
                try:
                    ingestion.Write(request, timeout=5)
                    break
                except grpc.RpcError as error:
                    if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                        raise
                    time.sleep(random.uniform(0.1, 1))
            print(f"{machine}: {value:.2f} °C is stored (sequence {sequence})", flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
