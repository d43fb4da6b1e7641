"""The fleet scorer: keeps the windows of this process' machines, scores them continuously and evaluates alarm rules.

All state of readings is confined to the model thread. The event loop keeps the streams, the alarms and what is written.
"""
