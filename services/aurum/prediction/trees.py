"""Boosted or isolation trees that serve: LightGBM's own library, called by its C interface.

LightGBM's Python method takes 40 µs before it looks at the first tree; its documented single-row call takes 5.
"""

import ctypes
import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_ROW_MAJOR, _FLOAT64 = 1, 1
_RAW_SCORE, _CONTRIBUTIONS = 1, 3
_ALL_ROUNDS = -1
_ONE_THREAD = b"num_threads=1"  # under load, several OpenMP threads for one row cost far more than they bring


class TreesError(ValueError):
    """A text that is no tree model, or a call that LightGBM refused; with its own words."""


class Trees:
    """Takes rows of `width` features and gives raw scores. Any thread may call it; one call runs at a time."""

    def __init__(self, text: str) -> None:
        """text: LightGBM's model format. Raises TreesError."""
        self._library = _load()
        self._handle = ctypes.c_void_p()
        rounds = ctypes.c_int()
        self._check(
            self._library.LGBM_BoosterLoadModelFromString(
                text.encode(), ctypes.byref(rounds), ctypes.byref(self._handle)
            )
        )
        width = ctypes.c_int()
        self._check(self._library.LGBM_BoosterGetNumFeature(self._handle, ctypes.byref(width)))
        self.width = width.value
        self._single = ctypes.c_void_p()
        self._check(
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._handle,
                ctypes.c_int(_RAW_SCORE),
                ctypes.c_int(0),
                ctypes.c_int(_ALL_ROUNDS),
                ctypes.c_int(_FLOAT64),
                ctypes.c_int32(self.width),
                _ONE_THREAD,
                ctypes.byref(self._single),
            )
        )
        self._lock = threading.Lock()  # its buffers are the handle's
        self._score = ctypes.c_double()
        self._length = ctypes.c_int64()
        self._arguments = (ctypes.byref(self._length), ctypes.byref(self._score))

    def __del__(self) -> None:
        if getattr(self, "_single", None):
            self._library.LGBM_FastConfigFree(self._single)
        if getattr(self, "_handle", None):
            self._library.LGBM_BoosterFree(self._handle)

    def __call__(self, rows: Floats) -> Floats:
        """The raw score of each row. Raises TreesError if they are not `width` wide."""
        if rows.shape[1] != self.width:
            raise TreesError(f"the rows have {rows.shape[1]} features, and the trees were trained on {self.width}")
        rows = np.ascontiguousarray(rows, dtype=np.float64)
        if len(rows) == 1:
            with self._lock:
                address = ctypes.c_void_p(rows.ctypes.data)
                self._check(
                    self._library.LGBM_BoosterPredictForMatSingleRowFast(self._single, address, *self._arguments)
                )
                return np.array([self._score.value])
        return self._predict(rows, _RAW_SCORE, 1)[:, 0]

    def contributions(self, row: Floats) -> Floats:
        """What each feature adds to the raw score of one row (TreeSHAP; Lundberg et al., 2020)."""
        return self._predict(np.ascontiguousarray(row[None, :]), _CONTRIBUTIONS, self.width + 1)[0, :-1]

    def _predict(self, rows: Floats, kind: int, columns: int) -> Floats:
        scores = np.empty((len(rows), columns))
        with self._lock:
            self._check(
                self._library.LGBM_BoosterPredictForMat(
                    self._handle,
                    ctypes.c_void_p(rows.ctypes.data),
                    ctypes.c_int(_FLOAT64),
                    ctypes.c_int32(len(rows)),
                    ctypes.c_int32(self.width),
                    ctypes.c_int(_ROW_MAJOR),
                    ctypes.c_int(kind),
                    ctypes.c_int(0),
                    ctypes.c_int(_ALL_ROUNDS),
                    _ONE_THREAD,
                    ctypes.byref(self._length),
                    ctypes.c_void_p(scores.ctypes.data),
                )
            )
        return scores

    def _check(self, status: int) -> None:
        if status != 0:
            raise TreesError(self._library.LGBM_GetLastError().decode(errors="replace"))


def _load() -> Any:
    """LightGBM's shared library, as its package has it. The package itself is not imported: it takes half a second and,
    with what it imports in turn, 60 MB. Raises TreesError."""
    package = importlib.util.find_spec("lightgbm")
    if package is None or package.origin is None:
        raise TreesError("lightgbm is not installed; install aurumai[prediction]")
    library = ctypes.CDLL(str(Path(package.origin).parent / "lib" / "lib_lightgbm.so"))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library
