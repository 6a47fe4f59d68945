"""HTML as values: everything that is not `Markup` is escaped on the way in."""

import html
from collections.abc import Iterable
from typing import Any, final

_VOID = {"img", "br", "meta"}


@final
class Markup(str):
    """Text that is HTML already. Only `tag`, `join` and constants of this package make it."""

    __slots__ = ()


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """One element with escaped attributes and children.

    Args:
        name: Element name, HTML or SVG.
        *children: Strings and numbers are escaped, `Markup` is kept, iterables are flattened.
        **attributes: `class_` becomes `class`, other underscores become hyphens; None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Markup:
    """The children one after the other, escaped unless they are `Markup`."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, Iterable) and not isinstance(child, str):
            parts.append(str(join(child)))
        elif child is not None:
            parts.append(html.escape(str(child)))
    return Markup("".join(parts))


def _number(value: Any) -> str:
    """Coordinates need no more than two decimals; they make up most of a chart's bytes."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
