"""Fuzzes one decoder, guided by coverage, until a time is over or a fault is found.

    python -m tests.support.fuzzing.engine TARGET FOLDER SECONDS

FOLDER/corpus gets the inputs that reached new code; FOLDER gets an input that shows a fault, as crash-… Needs atheris.
"""

import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["aurum", "yaml"]):
    from tests.support.fuzzing.oracle import measure_input, try_input
    from tests.support.fuzzing.targets import TARGETS

_MOST_BYTES = 8192  # of an input
_MEASURED = 20  # one in so many inputs is measured, which takes several times as long
_HANGS = 60  # seconds for one input, at which the engine takes the decoder to hang


def main(name: str, folder: Path, seconds: int) -> None:
    target = TARGETS[name]
    logging.disable(logging.CRITICAL)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    tried = 0

    def one(data: bytes) -> None:
        nonlocal tried
        tried += 1
        (measure_input if tried % _MEASURED == 0 else try_input)(target, data)

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_MOST_BYTES}",
        f"-timeout={_HANGS}",
        "-rss_limit_mb=2000",
        "-malloc_limit_mb=500",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
