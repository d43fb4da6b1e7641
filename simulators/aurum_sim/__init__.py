"""Simulators of a plant: its machines, their devices, and an edge gateway whose uplink fails."""
