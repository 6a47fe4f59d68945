"""A .tflite file as C++ source, for microcontrollers, which have no file system."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

_PER_LINE = 16


def write_source(path: pathlib.Path, content: bytes, class_names: Any = None) -> tuple[pathlib.Path, ...]:
    """Writes NAME.h and NAME.cc beside NAME.tflite: the bytes as an aligned array, its length, the labels.

    Args:
        path: The .tflite file; its name becomes that of the array.
        content: Its bytes.
        class_names: The labels: a sequence, or a dictionary by output; None for none.

    Returns:
        The paths of both.
    """
    name = re.sub(r"\W|^(?=\d)", "_", path.stem)
    labels = class_names if isinstance(class_names, Mapping) else {"": class_names or ()}
    header, source = path.with_suffix(".h"), path.with_suffix(".cc")
    declared = [f"extern const unsigned char {name}[];", f"extern const unsigned int {name}_length;"]
    defined = [
        f'#include "{header.name}"',
        f"alignas(16) const unsigned char {name}[] = {{",
        *_lines(content),
        "};",
        f"const unsigned int {name}_length = {len(content)};",
    ]
    for output, names in labels.items():
        if names:
            array = "_".join([name, "labels", *([re.sub(r"\W", "_", output)] if output else [])])
            declared.append(f"extern const char* const {array}[{len(names)}];")
            defined.append(f"const char* const {array}[] = {{{', '.join(map(_literal, names))}}};")
    header.write_text("#pragma once\n" + "\n".join(declared) + "\n", encoding="utf-8")
    source.write_text("\n".join(defined) + "\n", encoding="utf-8")
    return header, source


def _lines(content: bytes) -> Sequence[str]:
    starts = range(0, len(content), _PER_LINE)
    return ["  " + "".join(f"0x{byte:02x}, " for byte in content[i : i + _PER_LINE]).rstrip() for i in starts]


def _literal(text: str) -> str:
    """A C string; bytes outside of ASCII in octal, which ends after three digits, as \\x does not."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{escaped}"'
