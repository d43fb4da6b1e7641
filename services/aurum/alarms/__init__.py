"""Alarms by ISA-18.2: rules, conditions, states, the journal, and detection of alarm floods. Only `rules` does I/O."""
