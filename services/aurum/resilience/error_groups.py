"""Exception groups, as asyncio.TaskGroup raises them. Policies look at the errors in a group."""


def members(error: BaseException) -> list[BaseException]:
    """Returns all errors in a group, including those of nested groups. A single error is returned as a list of one."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [member for each in error.exceptions for member in members(each)]
