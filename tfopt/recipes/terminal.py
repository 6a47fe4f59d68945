"""Text from files and strangers' models, made safe for a terminal."""


def printable(text: str) -> str:
    """The text with escapes in the place of control characters, which could move the cursor or hide text."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
