"""For the site: `Example:` in a docstring is the section of examples, shown as code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the section before griffe parses the docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every object that is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^(\s*)Example:\s*$", r"\1Examples:", obj.docstring.value)

    on_instance = on_object  # the name before griffe 2
