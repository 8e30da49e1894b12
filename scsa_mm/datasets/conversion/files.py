"""Finding and reading the files of a set: letter case, twins, names that lead elsewhere, odd bytes and numbers."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ...runtime.errors import UserError
from .findings import printable

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
# Real annotation files of one image are kilobytes; more is another kind of file, and would fill the memory.
MAX_BYTES = 32 << 20
# float() and int() also take '1_000', 'nan' and the digits of other scripts.
LIMIT = 1e9
NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?', re.ASCII)


class Damaged(Exception):
    """One file of many that cannot be used; the message is the kind of damage."""


def is_file(entry: os.DirEntry) -> bool:
    """Whether it is a regular file, or a link to one; a link to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


class Folder:
    """The files of one folder with some suffixes, found by name without suffix.

    Args:
        path: A folder; hidden files and whatever is not a regular file are passed over.
        suffixes: In lower case, with the dot.
        after_images: A file is named after its image and that one's suffix, as ``a.jpg.txt`` for ``a.jpg``.

    Raises:
        UserError: if ``path`` is not a folder that can be listed.
    """

    def __init__(self, path: Path, suffixes: tuple[str, ...], after_images: bool = False) -> None:
        self.path = path
        self._exact: dict[str, list[str]] = {}
        self._folded: dict[str, list[str]] = {}
        try:
            with os.scandir(path) as entries:
                names = sorted(e.name for e in entries if not e.name.startswith('.') and is_file(e))
        except OSError as error:
            raise UserError(f'{path} cannot be listed: {error.strerror}') from error
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes:
                if after_images and os.path.splitext(stem)[1].lower() in IMAGE_SUFFIXES:
                    stem = os.path.splitext(stem)[0]
                self._exact.setdefault(stem, []).append(name)
                self._folded.setdefault(stem.lower(), []).append(name)

    def __len__(self) -> int:
        return sum(map(len, self._exact.values()))

    def stems(self) -> list[str]:
        """Names without suffix, sorted."""
        return sorted(self._exact)

    def find(self, stem: str, fold_case: bool = True) -> str | None:
        """The file of this name, in its own letter case if there is one such, else in another; None without any.

        Raises:
            UserError: if there are several, as they cannot be told apart.
        """
        names = self._exact.get(stem) or (self._folded.get(stem.lower()) if fold_case else None) or []
        if len(names) > 1:
            raise UserError(f'{self.path} has {printable(" and ".join(names))}: keep one of them')
        return names[0] if names else None

    def check_twins(self) -> None:
        """Raise UserError if two names differ by letter case or suffix only."""
        for names in self._folded.values():
            if len(names) > 1:
                raise UserError(f'{self.path} has {printable(" and ".join(names))}: keep one of them')


def require_folder(path: Path, expected: str) -> None:
    """Raise UserError unless ``path`` is a folder.

    Args:
        path: The folder.
        expected: The tree that should be there, for the message.
    """
    if not path.is_dir():
        what = 'is not a folder' if path.exists() else 'does not exist'
        raise UserError(f'{path} {what}; expected {expected}')


def inside(name: str) -> str:
    """A relative name as it goes into the json, with ``/``.

    Raises:
        Damaged: if it is empty, absolute, leads upwards or holds characters that no file name of a set has.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith('/') or '..' in parts or '\\' in name or not name.isprintable():
        raise Damaged('name that leads outside the data or is none')
    return '/'.join(parts)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        Damaged: if it is not there, too large, or not such text.
    """
    data = read_bytes(path)
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError:
        raise Damaged('annotation file that is not UTF-8 text') from None
    if '\0' in text:
        raise Damaged('annotation file that is not UTF-8 text')
    return text


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        Damaged: if it cannot be read or has more than :data:`MAX_BYTES`.
    """
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 'rb') as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Damaged('annotation that is not a regular file')
            if status.st_size > MAX_BYTES:
                raise Damaged(f'annotation file above {MAX_BYTES >> 20} MB')
            return file.read()
    except FileNotFoundError:
        raise Damaged('image without annotation file') from None
    except OSError as error:
        raise Damaged(f'annotation file that cannot be read: {error.strerror}') from error


def number(text: str) -> float | None:
    """The number that ``text`` is; None if it is not one, or larger than any coordinate."""
    value = float(text) if NUMBER.fullmatch(text) else LIMIT
    return value if abs(value) < LIMIT else None


def numbers(texts: Iterable[str]) -> list[float] | None:
    """All of them as numbers; None if one is not."""
    found = [number(text) for text in texts]
    return None if None in found else found
