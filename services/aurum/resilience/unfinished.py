"""Detects functions that return before their work is done, which must not be passed to blocking calls."""

from types import AsyncGeneratorType, CoroutineType, GeneratorType

UNFINISHED = frozenset({AsyncGeneratorType, CoroutineType, GeneratorType})
"""Types of results whose body has yet to run. Whether it fails is not known when the call returns."""


class UnfinishedCallError(TypeError):
    """Raised when a blocking function was expected, but the function returned a coroutine or a generator.

    It says nothing about the target, so policies count it neither as a success nor as a failure.
    """


def unfinished(caller: str, result: object, awaited: str, iterated: str) -> UnfinishedCallError:
    """Returns the error for such a result.

    Args:
        caller: What was called.
        result: The unfinished result. A coroutine is closed.
        awaited: What to use instead for a coroutine.
        iterated: What to use instead for a generator.
    """
    if isinstance(result, CoroutineType):
        result.close()  # it will never be awaited
    kind = {CoroutineType: "coroutine", GeneratorType: "generator"}.get(type(result), "asynchronous generator")
    instead = awaited if kind == "coroutine" else iterated
    article = "an" if kind[0] == "a" else "a"
    return UnfinishedCallError(f"{caller}: the function returned {article} {kind}, which has yet to run; use {instead}")
