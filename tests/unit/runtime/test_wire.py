"""The number of fields of a serialized message, told without parsing it."""

from hypothesis import given
from hypothesis import strategies as st

from aurum.runtime.grpc.wire import has_more_fields, only_field
from aurum.v1 import columns_pb2, ingestion_pb2, prediction_pb2

_NUMBERS = st.integers(0, 2**32 - 1)
_EVENTS = st.lists(st.builds(ingestion_pb2.Event, id=st.text(max_size=200), at_us=st.integers(0, 2**62)), max_size=30)


@given(_EVENTS, st.integers(0, 40))
def test_fields_are_counted_as_protobuf_writes_them(events: list[ingestion_pb2.Event], most: int) -> None:
    data = ingestion_pb2.RecordEventsRequest(events=events).SerializeToString()
    assert has_more_fields(data, most) == (len(events) > most)


@given(_NUMBERS, _NUMBERS, st.booleans())
def test_fields_of_every_type_are_counted(first: int, second: int, whole: bool) -> None:
    """Varints, lengths and fixed numbers are passed over, whatever their bytes look like."""
    message = ingestion_pb2.QueryRequest(points=first, last=second, start_us=first, machine_ids=["\n\x00" * 100])
    state = ingestion_pb2.SensorState(sensor="s" * 300, timestamp_us=second, value=float(first))
    data = (message if whole else state).SerializeToString()
    count = len((message if whole else state).ListFields())
    assert not has_more_fields(data, count)
    assert has_more_fields(data, count - 1)
    unpacked = columns_pb2.SeriesColumns(machine_id="m").SerializeToString() + b"\x19" + bytes(8) + b"\x25" + bytes(4)
    assert has_more_fields(unpacked, 2)
    assert not has_more_fields(unpacked, 3)


@given(st.binary(max_size=300), st.integers(0, 50))
def test_malformed_message_is_counted_to_its_end(data: bytes, most: int) -> None:
    """Bytes that are no message raise nothing, and have no more fields than bytes."""
    assert not has_more_fields(data, len(data))
    if has_more_fields(data, most):
        assert len(data) > most


@given(st.lists(st.text(max_size=9), max_size=300), st.binary(max_size=300))
def test_message_of_one_field_gives_its_content(names: list[str], values: bytes) -> None:
    """The content of the only field is found whatever its length; another field, or a cut, is told."""
    rows = prediction_pb2.FeatureRows(features=names, values=values)
    data = prediction_pb2.PredictBatchRequest(rows=rows).SerializeToString()
    content = only_field(data, 2)
    assert content is not None
    assert bytes(content) == rows.SerializeToString()
    assert only_field(data, 1) is None
    assert only_field(data + b"\x0a\x00", 2) is None
    assert only_field(data[:-1], 2) is None
    assert only_field(b"", 2) is None
