"""Evaluates boosted trees or isolation trees with LightGBM's library through its C interface.

LightGBM's Python method has an overhead of 40 µs per call; the documented single-row C function has 5 µs.
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
_ONE_THREAD = b"num_threads=1"  # under load, several OpenMP threads for one row are slower than one


class TreesError(ValueError):
    """The text is not a tree model, or LightGBM has refused a call. The message is LightGBM's own."""


class Trees:
    """Computes raw scores of rows of `width` features. It is thread-safe; calls run one at a time."""

    def __init__(self, text: str) -> None:
        """Loads trees from a text in LightGBM's model format. Raises TreesError."""
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
        self._lock = threading.Lock()  # guards the handle and its result buffers
        self._score = ctypes.c_double()
        self._length = ctypes.c_int64()
        self._arguments = (ctypes.byref(self._length), ctypes.byref(self._score))

    def __del__(self) -> None:
        if getattr(self, "_single", None):
            self._library.LGBM_FastConfigFree(self._single)
        if getattr(self, "_handle", None):
            self._library.LGBM_BoosterFree(self._handle)

    def __call__(self, rows: Floats) -> Floats:
        """Returns the raw score of each row. Raises TreesError if the rows do not have `width` features."""
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
        """Returns the contribution of each feature to the raw score of one row (TreeSHAP; Lundberg et al., 2020)."""
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
    """Loads the shared library from LightGBM's package. Raises TreesError if it is not installed.

    The package itself is not imported, since that takes half a second and, with its dependencies, 60 MB.
    """
    package = importlib.util.find_spec("lightgbm")
    if package is None or package.origin is None:
        raise TreesError("lightgbm is not installed; install aurumai[prediction]")
    library = ctypes.CDLL(str(Path(package.origin).parent / "lib" / "lib_lightgbm.so"))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library
