"""Safe decompression of zstd frames. Memory is bounded by the size of the frame, even if its header is damaged."""

import zstandard

_MAX_RATIO = 2**15  # a block of a frame has at least 4 bytes and holds at most 128 KiB (RFC 8878)


def decompress(decompressor: zstandard.ZstdDecompressor, frame: bytes | memoryview, size: int | None = None) -> bytes:
    """Returns the content of a frame that states its size, as ZstdCompressor.compress writes it.

    Args:
        decompressor: The decompressor to use.
        frame: The frame.
        size: The expected size of the content, if known.

    Raises:
        zstandard.ZstdError: If the frame is damaged, or its stated size is unexpected or impossible.
    """
    stated = zstandard.get_frame_parameters(frame).content_size
    if size is not None and stated != size:
        raise zstandard.ZstdError(f"the frame states {stated} bytes instead of {size}")
    if stated > _MAX_RATIO * len(frame):
        raise zstandard.ZstdError(
            f"the frame states {stated} bytes, which is impossible for {len(frame)} compressed bytes"
        )
    return decompressor.decompress(frame)
