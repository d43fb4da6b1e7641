"""Metrics of the simulators."""

from prometheus_client import Counter, Gauge

simulator_readings_total = Counter("simulator_readings_total", "Readings that the simulators produced.", ["result"])
simulator_buffer_batches = Gauge("simulator_buffer_batches", "Batches that the devices have buffered.")
