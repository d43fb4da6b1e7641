"""Energy, cost, carbon and water of machines from the readings of their meters.

Only the emission factors and the accounting plan need I/O; the calculations are pure functions.
"""
