"""What a group of errors, as asyncio.TaskGroup raises it, means to policies: as much as the errors in it."""


def members(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it; an error that is no group by itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [member for each in error.exceptions for member in members(each)]
