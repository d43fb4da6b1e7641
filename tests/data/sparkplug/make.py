"""Makes the payloads beside it with pysparkplug 0.6.1, another implementation of Sparkplug B. That wants an older MQTT
client than ours, so it has an environment of its own:

    python -m venv /tmp/sparkplug && /tmp/sparkplug/bin/pip install pysparkplug==0.6.1
    /tmp/sparkplug/bin/python tests/data/sparkplug/make.py
"""

import json
from pathlib import Path

from pysparkplug import DataType, DBirth, DData, DDeath, Metric, NBirth, NData, NDeath

AT = 1_764_000_000_000  # ms
HERE = Path(__file__).parent
TYPES = {
    "Bearing/Temperature": (DataType.FLOAT, 61.5),
    "Vibration": (DataType.DOUBLE, 2.25),
    "Level": (DataType.INT8, -5),
    "Torque": (DataType.INT16, -3000),
    "Position": (DataType.INT32, -2_000_000_000),
    "Counter": (DataType.INT64, -9_000_000_000_000_000),
    "Flags": (DataType.UINT8, 200),
    "Speed": (DataType.UINT16, 60_000),
    "Cycles": (DataType.UINT32, 4_000_000_000),
    "Energy": (DataType.UINT64, 2**52),
    "Running": (DataType.BOOLEAN, True),
    "Recipe": (DataType.STRING, "A-7"),
}


def metric(name, value, alias=None, at=AT, **more):
    return Metric(timestamp=at, name=name, datatype=TYPES[name][0], value=value, alias=alias, **more)


birth = tuple(metric(name, value, alias) for alias, (name, (_, value)) in enumerate(TYPES.items(), start=10))
payloads = {
    "nbirth": NBirth(
        timestamp=AT,
        seq=0,
        metrics=(
            Metric(timestamp=AT, name="bdSeq", datatype=DataType.INT64, value=3),
            Metric(timestamp=AT, name="Node Control/Rebirth", datatype=DataType.BOOLEAN, value=False),
            Metric(timestamp=AT, name="Cabinet/Temperature", datatype=DataType.FLOAT, value=31.5, alias=1),
        ),
    ),
    "dbirth": DBirth(timestamp=AT, seq=1, metrics=birth),
    "ddata": DData(  # by alias, without data types
        timestamp=AT + 1000,
        seq=2,
        metrics=tuple(
            Metric(timestamp=AT + 1000, name=None, datatype=TYPES[name][0], value=value, alias=alias)
            for alias, name, value in ((10, "Bearing/Temperature", 62.0), (12, "Level", -6), (20, "Running", False))
        ),
    ),
    "ddata_null": DData(
        timestamp=AT + 2000,
        seq=3,
        metrics=(
            Metric(timestamp=AT + 2000, name=None, datatype=DataType.DOUBLE, value=None, alias=11, is_null=True),
            Metric(timestamp=AT - 5000, name=None, datatype=DataType.FLOAT, value=60.0, alias=10, is_historical=True),
        ),
    ),
    "ndata": NData(
        timestamp=AT + 3000,
        seq=4,
        metrics=(Metric(timestamp=AT + 3000, name=None, datatype=DataType.FLOAT, value=32.0, alias=1),),
    ),
    "ddeath": DDeath(timestamp=AT + 4000, seq=5),
    "ndeath": NDeath(
        timestamp=AT + 5000, bd_seq_metric=Metric(timestamp=AT + 5000, name="bdSeq", datatype=DataType.INT64, value=3)
    ),
}
for name, payload in payloads.items():
    (HERE / f"{name}.bin").write_bytes(payload.encode())
expected = {name: value for name, (kind, value) in TYPES.items() if kind is not DataType.STRING}
(HERE / "birth.json").write_text(json.dumps(expected, indent=1) + "\n")
