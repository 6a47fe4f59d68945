"""The metadata that setup.cfg cannot hold: the README's links as they must be on the page of an index.

An index shows README.md without the files around it. With the address of the repository in the environment
variable TFOPT_REPOSITORY (.github/workflows/release.yml sets it), relative links lead there. Without it they
become plain text that names the file, because a link that leads nowhere is worse than none.
"""

import os
import pathlib
import re

from setuptools import setup

# A picture, or a link, of which the target is neither an address nor a place on the same page.
_RELATIVE = re.compile(r"(!?)\[([^]]*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def for_index(markdown: str, repository: str) -> str:
    """A README whose links work without the files beside it.

    Args:
        markdown: Its text, with links relative to the root of the repository.
        repository: The address, "https://forge.example/owner/name"; "" if it is not known.
    """

    def replaced(match: re.Match) -> str:
        picture, text, target = match.groups()
        if repository:
            place = "raw" if picture else "blob"
            return f"{picture}[{text}]({repository.rstrip('/')}/{place}/main/{target})"
        path = target.partition("#")[0]
        return text if picture or path in text else f"{text} ({path})"

    return _RELATIVE.sub(replaced, markdown)


def project_urls(repository: str) -> dict[str, str]:
    """What an index links beside the README."""
    root = repository.rstrip("/")
    pages = {"Source": root, "Issues": f"{root}/issues", "Changelog": f"{root}/blob/main/CHANGELOG.md"}
    return pages if root else {}


if __name__ == "__main__":
    ADDRESS = os.environ.get("TFOPT_REPOSITORY", "")
    README = pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    setup(long_description=for_index(README, ADDRESS), project_urls=project_urls(ADDRESS))
