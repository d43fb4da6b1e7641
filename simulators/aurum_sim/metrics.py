"""Metrics of the simulators."""

from prometheus_client import Counter, Gauge

simulator_readings_total = Counter("simulator_readings_total", "Readings of the simulators, by result.", ["result"])
simulator_buffer_batches = Gauge("simulator_buffer_batches", "Batches in the buffers of the devices.")
