"""Simulators of a plant: machines, devices, and an edge gateway with a failing uplink."""
