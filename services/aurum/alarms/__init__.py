"""Alarms by ISA-18.2: rules, conditions, states, and detection of alarm floods. Only `rules` does I/O."""
