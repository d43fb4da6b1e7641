"""CRC-32 of parts of a buffer, at a cost that is independent of the length of the part."""

import zlib
from functools import cached_property

_CHECKPOINT_BYTES = 4096  # distance of two precomputed checksums
_POLYNOMIAL = 0xEDB88320  # of zlib's CRC-32; the coefficient of x^0 is the highest bit


class PartChecksums:
    """Computes the CRC-32 of many parts of one buffer. Parts may overlap.

    The buffer is read once, when the checksum of the first long part is requested. The CRC of a part is
    computed from the CRCs of the buffer's prefixes up to its start and up to its end, as in zlib's crc32_combine:
    crc(prefix + part) = crc(prefix) · x^(8 · length of the part) + crc(part), over GF(2).
    """

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer

    def crc32(self, start: int, end: int) -> int:
        """Returns the same as `zlib.crc32(buffer[start:end])`."""
        if end - start <= _CHECKPOINT_BYTES:
            return zlib.crc32(memoryview(self._buffer)[start:end])
        return _append_zeros(self._prefix_checksum(start), end - start) ^ self._prefix_checksum(end)

    def _prefix_checksum(self, end: int) -> int:
        checkpoint = end // _CHECKPOINT_BYTES
        return zlib.crc32(
            memoryview(self._buffer)[checkpoint * _CHECKPOINT_BYTES : end], self._prefix_checksums[checkpoint]
        )

    @cached_property
    def _prefix_checksums(self) -> list[int]:
        checksums, view = [0], memoryview(self._buffer)
        for start in range(0, len(view), _CHECKPOINT_BYTES):
            checksums.append(zlib.crc32(view[start : start + _CHECKPOINT_BYTES], checksums[-1]))
        return checksums


def _multiply(left: int, right: int) -> int:
    """Returns the product of two polynomials modulo the CRC polynomial."""
    product = 0
    while left:
        if left & 0x80000000:
            product ^= right
        left = (left << 1) & 0xFFFFFFFF
        right = (right >> 1) ^ (_POLYNOMIAL if right & 1 else 0)
    return product


def _zero_byte_powers() -> list[int]:
    """Returns x^8, x^16, x^32, …: the factors for 1, 2, 4, … zero bytes, for lengths below 2^40."""
    powers = [1 << 23]
    while len(powers) < 40:
        powers.append(_multiply(powers[-1], powers[-1]))
    return powers


_ZERO_BYTE_POWERS = _zero_byte_powers()


def _append_zeros(checksum: int, length: int) -> int:
    """Returns checksum · x^(8 · length), which is the effect of `length` zero bytes on a CRC."""
    for power in _ZERO_BYTE_POWERS:
        if length & 1:
            checksum = _multiply(power, checksum)
        length >>= 1
        if not length:
            break
    return checksum
