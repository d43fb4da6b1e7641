"""Decodes batches without blocking the event loop for long."""

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor

from aurum.readings.batch import Batch
from aurum.readings.batch_decoding import decode
from aurum.readings.series_numbers import SeriesNumbers

_LARGE = 200_000  # bytes; passing a smaller batch to a thread takes longer than decoding it
_THREAD = ThreadPoolExecutor(1, thread_name_prefix="large-batch-decoder")  # one, since decoding takes memory


async def decode_batch(data: bytes, field: str, numbers: SeriesNumbers) -> Batch:
    """Decodes and checks a batch as `decode` does, a large one on a thread.

    Args:
        data: The serialized batch.
        field: Name of its field in the request, for errors.
        numbers: The numbers that earlier batches of the stream have defined.

    Raises:
        InvalidArgumentError: The batch breaks a rule.
    """
    if len(data) <= _LARGE:
        return decode(data, field=field, numbers=numbers)
    work = functools.partial(decode, data, field=field, numbers=numbers)
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work)
