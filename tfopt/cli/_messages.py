"""Errors of the library in one sentence, in the spelling of the command line."""

import argparse
import re

# What a mistake in the input, a machine without room or a stranger's file ends in; also by the names of
# classes that only heavy packages could give. All others are faults of the program.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError, EOFError)
_EXPECTED_NAMES = {"OpError", "BadZipFile", "error", "UnidentifiedImageError", "LZMAError"}
_LONGEST = 600  # characters; compilers and interpreters write pages


def is_expected(error: BaseException) -> bool:
    """Whether an error is about what was given, and not a fault of the program."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, _EXPECTED) or bool(names & _EXPECTED_NAMES)


def sentence(error: BaseException, command: argparse.ArgumentParser) -> str:
    """What an error says, in one line, with flags in the place of arguments."""
    if isinstance(error, MemoryError):
        text = "the memory of this machine is full. Make the batches or the images smaller"
    elif isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror}"
    else:
        text = _first_paragraph(str(error)) or type(error).__name__
    if not is_expected(error):
        text = f"{type(error).__name__}: {text.rstrip('.')}. This is a fault of tfopt; --verbose shows where"
    names_packages = isinstance(error, ImportError)  # `tensorboard` is then the package, not the flag
    return text if names_packages else spelled(text, command)


def spelled(text: str, command: argparse.ArgumentParser) -> str:
    """The text with flags for arguments: `image_size` is `--image-size`, overwrite=True is --overwrite."""
    for action in command._actions:
        flag = action.option_strings[0] if action.option_strings else str(action.metavar)
        if action.dest in ("help", "verbose"):
            continue
        names = "data|source" if action.dest == "data" else re.escape(action.dest)  # the data is a source
        text = re.sub(f"`({names})`", f"`{flag}`", text)
        pattern = rf"(?<![\w.`(])(?:{names})=('[^']*'|\"[^\"]*\"|[\w.+-]+)"
        text = re.sub(pattern, lambda match: _given(action, flag, match[1]), text)  # noqa: B023
        text = text.replace(f"{flag} ({flag})", flag)
    return text


def _given(action: argparse.Action, flag: str, value: str) -> str:
    """An argument with its value, as it is typed."""
    if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
        return flag if value == "True" else "--no-" + flag.removeprefix("--")
    typed = "none" if value == "None" else value.strip("'\"")
    return f"{flag} {typed}" if action.option_strings else typed


def _first_paragraph(text: str) -> str:
    """The first lines up to an empty one, as one line."""
    lines = text.strip().split("\n\n")[0].splitlines()
    line = " ".join(part.strip() for part in lines)
    return line if len(line) <= _LONGEST else line[:_LONGEST] + " ..."
