"""Makes texts of devices fit for logs, terminals and JSON."""


def printable(text: str, max_length: int) -> str:
    """Returns the beginning of a text, with U+FFFD for each character that a terminal or an encoding cannot show."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:max_length])
