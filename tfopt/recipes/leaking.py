"""The search for images that are in two splits, inside every run."""

import logging

from tfopt import data

_logger = logging.getLogger(__name__)


def leak_text(images: data.ImageDataset) -> str:
    """What `find_leaks` found, as a sentence for the console and the report; "" if there is nothing."""
    try:
        leaks = data.find_leaks(images)
    except Exception as error:  # a warning is not worth a run
        _logger.warning("the splits could not be searched for common images: %s", error, exc_info=True)
        return ""
    return f"Leak: {leaks}" if leaks else ""
