"""Inputs for the decoders: those that have shown a fault, and changes of others."""

from pathlib import Path

from hypothesis import strategies as st

FOLDER = Path(__file__).parents[2] / "data" / "fuzz"
_PIECES = (b"\0", b"\xff" * 8, b"[" * 200, b"9" * 400, b"1e999", b"NaN", b'"', b"\n", b"\xf0", b"-", b"{}", b"ALG\x01")
_MOST_CHANGES = 6


def saved(name: str) -> list[bytes]:
    """The inputs that have shown a fault of a decoder; each stays as a test."""
    return [path.read_bytes() for path in sorted((FOLDER / name).glob("*"))]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with a few bytes changed, removed, added, or taken from another seed."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, _MOST_CHANGES))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 20)))
        match draw(st.sampled_from(["flip", "set", "insert", "remove", "repeat", "splice"])):
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "set" if start < len(data):
                data[start] = draw(st.integers(0, 255))
            case "insert":
                data[start:start] = draw(st.sampled_from(_PIECES) | st.binary(max_size=8))
            case "remove":
                del data[start:end]
            case "repeat":
                data[start:start] = data[start:end] * draw(st.integers(1, 20))
            case "splice":
                other = draw(st.sampled_from(seeds))
                data[start:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)
