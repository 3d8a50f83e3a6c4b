"""Finds the image files in folders: one walk for training, prepare and predict.

Hidden files and folders are skipped, links are followed, and a folder that links reach twice is one folder. A file with the
suffix of a readable image format is an image; every other file is opened and judged by its first bytes. Only regular files
are opened: reading a pipe or a device may never end.
"""

import collections
import functools
import glob
import heapq
import os
import pathlib
import stat
from collections.abc import Callable, Container, Iterator, Sequence

from openset_jax.data.image_format import HEAD, READABLE, image_format
from openset_jax.errors import UserError
from openset_jax.text import show

_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",), "gif": (".gif",), "bmp": (".bmp",), "webp": (".webp",),
    "tiff": (".tif", ".tiff"), "jpeg2000": (".jp2",), "netpbm": (".ppm", ".pgm", ".pbm"), "avif": (".avif",),
}  # fmt: skip
IMAGE_SUFFIXES = tuple(suffix for kind, suffixes in _SUFFIXES.items() if kind in READABLE for suffix in suffixes)
_MOST_LINES, _MOST_PARTS = 10, 6
# folders that systems make, with thumbnails, deleted files or copies: of NAS devices, macOS archives, Windows and Linux
_OF_SYSTEMS = {"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"}

Identity = tuple[int, int]  # device and inode of a folder


class Walk:
    """The image files of some folders.

    A folder that is reached twice counts where it is reached without links, else at the first path in alphabetical order.

    Args:
      root: the folder to which all paths are relative.
      folders: the folders to search, with all their subfolders; "" is the root.
      containers: folders that hold these folders; links to them are errors.

    Attributes:
      images: {folder: paths of its image files, ascending}.
      visited: the folders that were searched, and the containers.

    Raises:
      UserError: a folder cannot be listed, or two of `folders` have a subfolder in common.
    """

    def __init__(self, root: str, folders: Sequence[str], containers: Sequence[str] = ()):
        self.images: dict[str, list[str]] = {folder: [] for folder in folders}
        self.visited: dict[Identity, str] = {identity(os.path.join(root, path)): path for path in containers}
        self._root = root
        self._holder: dict[str, str | None] = dict.fromkeys(containers)  # visited folder -> the one of `folders` it is in
        self._same: list[str] = []
        self._counts = {folder: collections.Counter[tuple[str, str]]() for folder in folders}
        self._waiting = [(os.path.islink(os.path.join(root, path)), path, path) for path in folders]
        heapq.heapify(self._waiting)
        while self._waiting:
            _, path, folder = heapq.heappop(self._waiting)  # first all folders that are no links
            if self._is_new(path, folder):
                self._list(path, folder)
        for paths in self.images.values():
            paths.sort()

    def notes(self) -> list[str]:
        """Returns a line for each folder with files that were left out, and for each folder that was reached twice."""
        lines = list(self._same)
        for folder, counts in self._counts.items():
            parts = [f"{count:,} {what} ({why})" for (what, why), count in counts.most_common()]
            if parts:
                shown = ", ".join(parts[:_MOST_PARTS] + ["..."] * (len(parts) > _MOST_PARTS))
                lines.append(f"{counted(counts.total(), 'file')} in {self._full(folder)!r} left out: {shown}")
        return lines

    def _full(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._root, path))

    def _is_new(self, path: str, folder: str) -> bool:
        first = self.visited.setdefault(identity(os.path.join(self._root, path)), path)
        if first == path:
            self._holder[path] = folder
        elif self._holder[first] == folder:
            self._same.append(f"{self._full(path)!r} left out: it is the same folder as {self._full(first)!r}")
        else:
            raise UserError(
                f"{self._full(path)!r} and {self._full(first)!r} are the same folder, because of a link, so that its images "
                "would be used twice, in different places; remove the link"
            )
        return first == path

    def _list(self, path: str, folder: str) -> None:
        prefix, images, left_out = path and f"{path}/", self.images[folder], self._counts[folder]
        for entry in _entries(os.path.join(self._root, path)):
            name, is_image = entry.name, entry.name.lower().endswith(IMAGE_SUFFIXES)
            kind = stat.S_IFREG if entry.is_file(follow_symlinks=False) else file_type(entry.path)
            if kind == stat.S_IFDIR:
                heapq.heappush(self._waiting, (entry.is_symlink(), prefix + name, folder))
            elif is_image and kind in (stat.S_IFREG, 0):
                images.append(prefix + name)
            elif kind != stat.S_IFREG:
                left_out[repr(name), "no regular file" if kind else "a link that leads nowhere"] += 1
            elif why := _why_no_image(entry.path):
                suffix = os.path.splitext(name)[1].lower()
                left_out[suffix if suffix[1:].isalnum() else "without a usual suffix", why] += 1
            else:
                images.append(prefix + name)


def find_images(paths: Sequence[str], report: Callable[[str], None] = show) -> list[str]:
    """Lists image files, each once: the given files, the images in folders and their subfolders, the matches of globs.

    Folders are searched as those of training are (`data.image_files`). Files that were given are listed whatever they hold,
    except pipes and devices, whose reading may never end.

    Args:
      report: called with a line on files that were left out, and on repeated ones.

    Raises:
      UserError: a path does not exist, a folder cannot be listed, or there is no image.
    """
    found: dict[tuple[str, str], str] = {}  # (real folder, name) -> path, as it was first given
    real_folder = functools.cache(os.path.realpath)
    left_out: list[str] = []
    repeated, given = 0, set[str]()
    for path in map(str, paths):
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            hint = "; in a pattern, [x] stands for x, and [[] for [" if "[" in path else ""
            raise UserError(f"{path!r}: there is no such file or folder, and no file matches it{hint}")
        for match in matches:
            kind, files = file_type(match), [match]
            if kind == stat.S_IFDIR:
                walk = Walk(match, [""])
                files = [str(pathlib.Path(match, name)) for name in walk.images[""]]
                left_out += walk.notes()
            elif kind not in (stat.S_IFREG, 0):
                left_out.append(f"{match!r} left out: no regular file")
                continue
            for file in files:
                folder, name = os.path.split(file)
                repeated += found.setdefault((real_folder(folder), name), file) != file or file in given
                given.add(file)
    if repeated:
        left_out.append(f"{counted(repeated, 'path')} to a file that is listed already left out")
    for line in shorten(list(dict.fromkeys(left_out))):
        report(line)
    if not found:
        raise UserError(f"no images in {', '.join(map(repr, paths)) or 'no paths'}: give files, folders or globs")
    return list(found.values())


def identity(folder: str) -> Identity:
    """Returns what is the same for all paths to a folder. Raises UserError if it does not exist or may not be entered."""
    try:
        there = os.stat(folder)
    except OSError as error:
        raise _unlisted(error) from error
    return there.st_dev, there.st_ino


def file_type(path: str) -> int:
    """Returns the `stat.S_IFMT` of what a path or link leads to; 0 if it leads nowhere."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        return 0


def subfolders(folder: str) -> tuple[list[str], int]:
    """Returns the names of the folders in a folder, ascending, and the number of images that lie beside them.

    Raises UserError if the folder cannot be listed.
    """
    names, images = [], 0
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and file_type(entry.path) == stat.S_IFDIR):
            names.append(entry.name)
        else:
            images += entry.name.lower().endswith(IMAGE_SUFFIXES)
    return sorted(names), images


def count_images(folder: str, visited: Container[Identity]) -> int:
    """Returns the number of images below a folder, by their suffixes, without links and visited folders."""
    count = 0
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if identity(top) in visited:
            folders.clear()
        else:
            count += sum(name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".") for name in names)
    return count


def counted(count: int, noun: str) -> str:
    """Returns "1 file" or "1,000 files"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def shorten(lines: Sequence[str]) -> tuple[str, ...]:
    """Returns the first lines, and the number of the others."""
    rest = len(lines) - _MOST_LINES
    return (*lines[:_MOST_LINES], f"... and {rest:,} more lines of this kind") if rest > 1 else tuple(lines)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name not in _OF_SYSTEMS:
                    yield entry
    except OSError as error:
        raise _unlisted(error) from error


def _unlisted(error: OSError) -> UserError:
    return UserError(f"{error.filename!r} cannot be listed: {error.strerror}")


def _why_no_image(path: str) -> str:
    """Returns "" if a regular file is an image that can be decoded."""
    try:
        with open(path, "rb", buffering=0) as file:
            kind = image_format(file.read(HEAD))
    except OSError as error:
        return str(error.strerror)
    if kind in READABLE:
        return ""
    return f"this Pillow cannot read {kind.upper()}" if kind else "no image"
