"""Alarms by ISA-18.2: what raises them, the states that they go through, when there are too many. Pure functions."""
