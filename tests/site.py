"""`make docs`: every public name has an entry in the API reference. python tests/site.py site"""

import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def public(package: pathlib.Path) -> list[str]:
    """The functions and classes in `__all__` of a package."""
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
            shown = [name for name in names if not name.startswith("__") and not is_constant(package, name)]
            return [name for name in shown if not (package / name).is_dir()]
    return []


def is_constant(package: pathlib.Path, name: str) -> bool:
    """Whether a name in capitals is a constant; `SGD` and `PCA` are classes."""
    files = (path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    return name.isupper() and not any(re.search(rf"^class {name}\b", text, re.MULTILINE) for text in files)


def main(folder: str) -> None:
    """Compares the packages with the built pages.

    Raises:
        SystemExit: If a public name is missing; the message lists all that are.
    """
    text = "".join(page.read_text(encoding="utf-8") for page in pathlib.Path(folder).rglob("*.html"))
    shown = set(re.findall(r'id="(tfopt[\w.]*)"', text))
    packages = [ROOT / "tfopt", *sorted(path.parent for path in (ROOT / "tfopt").glob("*/__init__.py"))]
    wanted = [
        ".".join([*package.relative_to(ROOT).parts, name]) for package in packages for name in public(package)
    ]
    # A function whose module has its name is shown at the place of its definition.
    places = {(name.split(".")[1], name.rpartition(".")[2]) for name in shown if "." in name}
    absent = [name for name in wanted if (name.split(".")[1], name.rpartition(".")[2]) not in places]
    if absent:
        raise SystemExit("not in the API reference (docs/reference, mkdocs.yml):\n" + "\n".join(absent))
    print(f"{len(wanted)} public names are in the API reference")


if __name__ == "__main__":
    main(sys.argv[1])
