"""The metadata that setup.cfg cannot hold: the README's links as they must be on the page of an index.

An index shows README.md without the files around it. With the address of the repository in the environment
variable TFOPT_REPOSITORY (.github/workflows/release.yml sets it), relative links lead there, and the badge of
a notebook opens it in Colab if the repository is on GitHub. Without it they become plain text that names the
file, because a link that leads nowhere is worse than none.
"""

import os
import pathlib
import re

from setuptools import setup

# A target that is neither an address nor a place on the same page; of a picture, or of a link, which may be
# around a picture.
_TARGET = r"\((?!https?:|mailto:|#)([^)\s]+)\)"
_PICTURE = re.compile(rf"!\[([^]]*)\]{_TARGET}")
_LINK = re.compile(rf"(?<!!)\[(!\[[^]]*\]\([^)]*\)|[^]!]*)\]{_TARGET}")
_GITHUB, _COLAB = "https://github.com/", "https://colab.research.google.com/github/"


def for_index(markdown: str, repository: str) -> str:
    """A README whose links work without the files beside it.

    Args:
        markdown: Its text, with links relative to the root of the repository.
        repository: The address, "https://forge.example/owner/name"; "" if it is not known.
    """

    root = repository.rstrip("/")

    def picture(match: re.Match) -> str:
        text, target = match.groups()
        return f"![{text}]({root}/raw/main/{target})" if root else text

    def link(match: re.Match) -> str:
        text, target = match.groups()
        if root:
            badge = text.startswith("!") and target.endswith(".ipynb")
            place = root.replace(_GITHUB, _COLAB) if badge else root
            return f"[{text}]({place}/blob/main/{target})"
        path = target.partition("#")[0]
        return text if path in text else f"{text} ({path})"

    return _LINK.sub(link, _PICTURE.sub(picture, markdown))


def project_urls(repository: str) -> dict[str, str]:
    """What an index links beside the README."""
    root = repository.rstrip("/")
    pages = {"Source": root, "Issues": f"{root}/issues", "Changelog": f"{root}/blob/main/CHANGELOG.md"}
    return pages if root else {}


if __name__ == "__main__":
    ADDRESS = os.environ.get("TFOPT_REPOSITORY", "")
    README = pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    setup(long_description=for_index(README, ADDRESS), project_urls=project_urls(ADDRESS))
