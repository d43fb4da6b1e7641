"""Frames of zstd from the disk, decompressed in memory that is bounded by their size, whatever they say of theirs."""

import zstandard

_MOST_RATIO = 2**15  # a block of a frame has at least 4 bytes and holds at most 128 KiB (RFC 8878)


def decompress(decompressor: zstandard.ZstdDecompressor, frame: bytes | memoryview, size: int | None = None) -> bytes:
    """The content of a frame that states its size, as ZstdCompressor.compress makes it.

    size: of the content, if it is known. Raises zstandard.ZstdError, also if the size is another or cannot be.
    """
    stated = zstandard.get_frame_parameters(frame).content_size
    if size is not None and stated != size:
        raise zstandard.ZstdError(f"holds {stated} bytes and not {size}")
    if stated > _MOST_RATIO * len(frame):
        raise zstandard.ZstdError(f"cannot hold {stated} bytes in {len(frame)}")
    return decompressor.decompress(frame)
