"""The input of files: what a file becomes, on a spool in memory."""

import asyncio
from pathlib import Path

import pytest

from aurum.edge.inputs.common.configuration import FilesInput, TagRule
from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.edge.inputs.files.input import Files
from aurum.readings.batch import MAX_SERIES
from aurum.readings.batch_decoding import decode
from tests.support.batch_builder import MemorySpool, make_builder

HEAD = "machine_id,timestamp,sensor,value\n"


async def stored(folder: Path, content: str, *rules: TagRule) -> list[dict[tuple[str, str], list[float]]]:
    """The batches of a file, as ingestion would take them."""
    spool = MemorySpool()
    (folder / "one.csv").write_text(content)
    options = FilesInput.model_validate({"name": "drops", "protocol": "files", "folder": folder, "settled": 0})
    running = asyncio.create_task(Files(options, make_builder(spool, *rules), ConnectionStatus("drops")).run())
    while (folder / "one.csv").exists():
        await asyncio.sleep(0.01)
        assert not running.done()
    running.cancel()
    batches = [decode(batch.data) for batch in spool.batches]
    return [{(each.machine_id, each.sensor): each.values.tolist() for each in batch.series} for batch in batches]


async def test_series_without_a_number_once_converted_is_left_out(tmp_path: Path) -> None:
    rows = "m,1790000000,big,1e300\nm,1790000001,big,nan\nm,1790000000,other,2\n"
    assert await stored(tmp_path, HEAD + rows, TagRule(sensor="big", scale=1e300)) == [{("m", "other"): [2.0]}]


@pytest.mark.parametrize("more", [0, 1])
async def test_file_of_many_machines_makes_batches_within_limits(tmp_path: Path, more: int) -> None:
    rows = "".join(f"m-{number},1790000000,s,1\n" for number in range(MAX_SERIES + more))
    found = await stored(tmp_path, HEAD + rows)
    assert [len(batch) for batch in found] == [MAX_SERIES, 1][: 1 + more]
