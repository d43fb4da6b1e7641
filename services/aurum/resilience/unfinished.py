"""What a blocking call must not be given: a function that returns before any of its work is done."""

from types import AsyncGeneratorType, CoroutineType, GeneratorType

UNFINISHED = frozenset({AsyncGeneratorType, CoroutineType, GeneratorType})
"""Types of results whose body has yet to run. Whether it fails is not known when the call returns."""


class UnfinishedCallError(TypeError):
    """A function that blocks was expected; one that returns a coroutine or a generator was given. It says nothing of
    the target, so policies count it neither as a success nor as a failure."""


def unfinished(caller: str, result: object, awaited: str, iterated: str) -> UnfinishedCallError:
    """The error for such a result. caller: what was called; awaited: what to use for a coroutine instead; iterated:
    what for a generator."""
    if isinstance(result, CoroutineType):
        result.close()  # it will never be awaited
    kind = {CoroutineType: "coroutine", GeneratorType: "generator"}.get(type(result), "asynchronous generator")
    instead = awaited if kind == "coroutine" else iterated
    article = "an" if kind[0] == "a" else "a"
    return UnfinishedCallError(f"{caller}: the function returned {article} {kind}, which has yet to run; use {instead}")
