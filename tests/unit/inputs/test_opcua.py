"""OPC UA: notifications are decoded as the library decodes them."""

import logging
import struct
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.configuration import OpcuaInput
from aurum.edge.inputs.opcua.changes import Content, changes_from_notification, read_changes, read_publish_response
from aurum.edge.inputs.opcua.input import Opcua
from tests.support.batch_builder import MemorySpool, make_builder

_TYPED = st.one_of(
    st.tuples(st.just(ua.VariantType.Double), st.floats()),
    st.tuples(st.just(ua.VariantType.Float), st.floats(width=32)),
    st.tuples(st.just(ua.VariantType.Int16), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just(ua.VariantType.UInt64), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(ua.VariantType.Boolean), st.booleans()),
    st.tuples(st.just(ua.VariantType.String), st.text(max_size=5)),
    st.tuples(st.just(ua.VariantType.Int32), st.lists(st.integers(0, 5), min_size=1, max_size=3)),
)
_MOMENTS = st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1))


@st.composite
def _notifications(draw: st.DrawFn) -> ua.DataChangeNotification:
    """Runs of changes that are like each other, as servers send them."""
    items = []
    for _ in range(draw(st.integers(0, 5))):
        kind, value = draw(_TYPED)
        source, server = draw(_MOMENTS), draw(_MOMENTS)
        status = draw(st.sampled_from([None, 0, 0x4000_0000, 0x8000_0000, 0x0000_0400]))
        for handle in range(draw(st.integers(1, 12))):
            data = ua.DataValue(
                ua.Variant(value, kind),
                StatusCode=None if status is None else ua.StatusCode(ua.UInt32(status)),
                SourceTimestamp=source,
                ServerTimestamp=server,
            )
            items.append(ua.MonitoredItemNotification(ClientHandle=handle, Value=data))
    return ua.DataChangeNotification(MonitoredItems=items)


@given(_notifications())
def test_change_decoder_matches_the_library(notification: ua.DataChangeNotification) -> None:
    body = struct_to_binary(notification)
    expected = changes_from_notification(struct_from_binary(ua.DataChangeNotification, Buffer(body)))
    found = read_changes(body)
    for name in ("handles", "at_us", "good", "values", "statuses", "contents"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_publish_response_is_decoded() -> None:
    changes = ua.DataChangeNotification(
        MonitoredItems=[
            ua.MonitoredItemNotification(ClientHandle=7, Value=ua.DataValue(ua.Variant(1.5, ua.VariantType.Double)))
        ]
    )
    status = ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(0x80AB_0000)))
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 3
    response.Parameters.AvailableSequenceNumbers = [4, 5]
    response.Parameters.NotificationMessage.SequenceNumber = 5
    response.Parameters.NotificationMessage.NotificationData = [changes, status]
    found = read_publish_response(Buffer(struct_to_binary(response))).Parameters
    assert (found.SubscriptionId, found.AvailableSequenceNumbers) == (3, [4, 5])
    assert found.NotificationMessage.SequenceNumber == 5
    first, second = found.NotificationMessage.NotificationData
    assert (first.handles.tolist(), first.values.tolist(), first.good.tolist()) == ([7], [1.5], [True])
    assert second == status
    with pytest.raises((ua.UaError, struct.error, ValueError)):
        read_publish_response(Buffer(struct_to_binary(response)[:-60]))


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (1.5, Content.NUMBER),
        (True, Content.NUMBER),
        ("Running", Content.TEXT),
        (ua.LocalizedText("Running"), Content.TEXT),
        (None, Content.NOTHING),
        ([1.0, 2.0], Content.OTHER),
        (datetime(2026, 1, 1), Content.OTHER),
    ],
)
def test_kind_of_a_value_is_recognised(value: Any, content: Content) -> None:
    item = ua.MonitoredItemNotification(ClientHandle=1, Value=ua.DataValue(ua.Variant(value)))
    changes = changes_from_notification(ua.DataChangeNotification(MonitoredItems=[item]))
    assert changes.contents.tolist() == [content]
    assert changes.good.tolist() == [content is Content.NUMBER]


def test_granted_session_timeout_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {"name": "cell", "protocol": "opcua", "endpoint": "opc.tcp://127.0.0.1:1", "browse": [{}]}
    Opcua(OpcuaInput.model_validate(given), make_builder(MemorySpool()), Mock(), tmp_path)
    logger = logging.getLogger("asyncua.client.client")
    logger.warning("Requested session timeout to be %dms, got %dms instead", 3_600_000, 60_000)
    logger.warning("the server certificate has expired")
    assert caplog.messages == ["the server certificate has expired"]
