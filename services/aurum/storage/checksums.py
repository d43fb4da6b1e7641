"""CRC-32 of parts of a buffer, at a cost that is independent of the length of the part."""

import zlib
from functools import cached_property

_EVERY = 4096  # bytes between two precomputed checksums
_POLYNOMIAL = 0xEDB88320  # of zlib's CRC-32; the coefficient of x^0 is the highest bit


class PartChecksums:
    """Checksums of many parts of one buffer. Parts may overlap.

    The buffer is read once, when the first long part is asked for. The CRC of a part is computed from the CRCs of the
    buffer's prefixes up to its start and up to its end, as in zlib's crc32_combine: crc(prefix + part) = crc(prefix)
    · x^(8 · length of the part) + crc(part), over GF(2).
    """

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer

    def of(self, start: int, end: int) -> int:
        """Returns zlib.crc32(buffer[start:end])."""
        if end - start <= _EVERY:
            return zlib.crc32(memoryview(self._buffer)[start:end])
        return _shifted(self._of_beginning(start), end - start) ^ self._of_beginning(end)

    def _of_beginning(self, end: int) -> int:
        known = end // _EVERY
        return zlib.crc32(memoryview(self._buffer)[known * _EVERY : end], self._known[known])

    @cached_property
    def _known(self) -> list[int]:
        found, view = [0], memoryview(self._buffer)
        for start in range(0, len(view), _EVERY):
            found.append(zlib.crc32(view[start : start + _EVERY], found[-1]))
        return found


def _product(one: int, other: int) -> int:
    """Returns the product of two polynomials modulo the CRC polynomial."""
    product = 0
    while one:
        if one & 0x80000000:
            product ^= other
        one = (one << 1) & 0xFFFFFFFF
        other = (other >> 1) ^ (_POLYNOMIAL if other & 1 else 0)
    return product


def _powers() -> list[int]:
    """Returns x^8, x^16, x^32, …, for lengths below 2^40 bytes."""
    found = [1 << 23]
    while len(found) < 40:
        found.append(_product(found[-1], found[-1]))
    return found


_POWERS = _powers()


def _shifted(checksum: int, length: int) -> int:
    """Returns checksum · x^(8 · length)."""
    for power in _POWERS:
        if length & 1:
            checksum = _product(power, checksum)
        length >>= 1
        if not length:
            break
    return checksum
