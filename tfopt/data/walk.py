"""Walks through folders of images: which files are images, which are junk, and which links lead back."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import final

# What systems and programs leave beside images. Names that begin with a dot are passed over as well.
_JUNK_FOLDERS = {"@eadir", "__macosx", "$recycle.bin", "#recycle", "#snapshot", "system volume information"}
_JUNK_FOLDERS |= {"lost+found", "__pycache__", "@tmp", "recycler"}
_JUNK_FILES = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini"}
# What lies beside images and describes them, or the folder.
_COMPANIONS: tuple[str, ...] = (
    ".txt",
    ".md",
    ".rst",
    ".html",
    ".htm",
    ".pdf",
    ".doc",
    ".docx",
    ".rtf",
    ".url",
    ".lnk",
)
_COMPANIONS += (".xml", ".json", ".jsonl", ".csv", ".tsv", ".xls", ".xlsx", ".yaml", ".yml", ".ini", ".cfg")
_COMPANIONS += (".xmp", ".aae", ".log", ".db", ".py", ".ipynb", ".sh", ".bat", ".mat", ".npy", ".npz")
_COMPANIONS += (".pkl", ".h5", ".md5", ".sha1", ".sha256", ".part", ".crdownload", ".tmp", ".bak", ".swp")

# Files with these endings are images, damaged or not; all that Pillow reads and people have.
EXTENSIONS: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".jif",
    ".pjpeg",
    ".pjp",
    ".png",
    ".apng",
    ".gif",
    ".bmp",
)
EXTENSIONS += (".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf")
EXTENSIONS += (".jpx", ".tga", ".ico", ".pcx", ".avif", ".heic", ".heif", ".hif", ".svg", ".dcm")

_LOOK = 512  # bytes that tell an image from a text
_TGA_FOOTER = b"TRUEVISION-XFILE"
_MAGIC: tuple[bytes, ...] = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)
_MAGIC += (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\1\0", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")


@final
class Walk:
    """The files of class folders, each real folder once.

    Attributes:
        links_back: Links to a folder in which they lie, or that was walked before in the same class.
        shared: Pairs of paths, in different class folders, that are one folder because of a link.
    """

    def __init__(self) -> None:
        self.links_back: list[str] = []
        self.shared: list[tuple[str, str]] = []
        self._junk: dict[str, str] = {}  # path to kind: folders are looked at several times
        self._walked: dict[str, str] = {}

    @property
    def passed_over(self) -> Counter[str]:
        """How many files and folders of each kind of junk were left out."""
        return Counter(self._junk.values())

    def files(self, root: str) -> Iterator[tuple[str, bool]]:
        """(path, whether it is taken for an image) of every file below `root` that is no junk, sorted.

        Files that are neither images nor texts nor usual companions of images come with False: a video, a
        raw photograph. Symbolic links are followed, without running in circles.
        """
        seen = set()
        outside = os.path.dirname(os.path.realpath(root)) + os.sep
        for folder, subfolders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen or (folder != root and outside.startswith(real + os.sep)):
                self.links_back.append(folder)
                subfolders.clear()
                continue
            seen.add(real)
            if self._walked.setdefault(real, folder) != folder:
                self.shared.append((folder, self._walked[real]))
            subfolders[:] = sorted(name for name in subfolders if not self._is_junk_folder(folder, name))
            for name in sorted(names):
                path = os.path.join(folder, name)
                image = self.is_image(path)
                if image is not None:
                    yield path, image

    def subfolders(self, directory: str) -> list[str]:
        """Visible folders in a folder, sorted."""
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
        return sorted(name for name in names if not self._is_junk_folder(directory, name))

    def _is_junk_folder(self, directory: str, name: str) -> bool:
        if name.lower() in _JUNK_FOLDERS:
            self._junk[os.path.join(directory, name)] = name
            return True
        return name.startswith(".")

    def is_image(self, path: str) -> bool | None:
        """Whether a file is taken for an image; None for junk."""
        name = os.path.basename(path)
        lower, ending = name.lower(), os.path.splitext(name)[1].lower()
        if ending in EXTENSIONS and not name.startswith("."):
            return True
        if name.startswith("."):
            if lower == ".ds_store" or name.startswith("._"):
                self._junk[path] = ".DS_Store" if lower == ".ds_store" else "._*"
            return None
        if lower in _JUNK_FILES or ending in _COMPANIONS:
            self._junk[path] = name if lower in _JUNK_FILES else f"*{ending}"
            return None
        kind = kind_of(path)
        if kind == "text":
            self._junk[path] = f"*{ending}" if ending else "text without ending"
            return None
        return kind == "image"


def kind_of(path: str) -> str:
    """What a file without a usual ending holds: "image", "text" or "other"."""
    try:
        if not os.path.isfile(path):
            return "other"
        with open(path, "rb") as file:
            head = file.read(_LOOK)
            file.seek(max(os.fstat(file.fileno()).st_size - 26, 0))
            tail = file.read()
    except OSError:  # the reader names it
        return "other"
    heif = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    if heif or webp or _TGA_FOOTER in tail or any(_starts(head, magic) for magic in _MAGIC):
        return "image"
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not only a character that was cut
            return "other"
    return "other" if b"\0" in head else "text"


def _starts(head: bytes, magic: bytes) -> bool:
    """Two letters alone are the beginning of many texts, so the next bytes must fit as well."""
    if magic == b"BM":
        return head.startswith(magic) and head[6:10] == bytes(4)
    return head.startswith(magic) and (magic[:1] != b"P" or head[2:3].isspace())
