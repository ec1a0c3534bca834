"""passwd(5), group(5), subuid(5): lines of fields that colons separate."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HIGHEST = 0xfffffffe        # (uid_t) -1 means nobody, credentials(7)


def rows(text: str) -> "Iterator[list[str]]":
    """Yield the lines as lists of fields."""
    for line in text.split("\n"):
        yield line.split(":")


def is_id(text: str) -> bool:
    """Tell whether it is the number of a user or a group."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= HIGHEST
