"""Reading a json in COCO's format, item by item and without masks: a large one would fill the memory."""

import json
from pathlib import Path
from typing import NamedTuple, TextIO

from ...runtime.errors import UserError, one_line
from .files import LIMIT
from .findings import printable

CHUNK = 1 << 20  # characters
BLANKS = ' \t\n\r'
NUMBER_GOES_ON = ('', *'0123456789.eE+-')


class Object(NamedTuple):
    """What is kept of an annotation while the file is read, which holds much that is not needed."""

    image_id: object
    category_id: object
    bbox: object
    iscrowd: object


def load(path: Path) -> dict:
    """The content of a json in COCO's format, with :class:`Object` for its annotations.

    Raises:
        UserError: if it cannot be read or lacks one of the three lists.
    """
    if not path.is_file():  # a named pipe would be waited for
        raise UserError(f'{path} is not a regular file')
    try:
        with open(path, encoding='utf-8-sig') as file:
            content = _Reader(file).content()
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not json: it is not UTF-8 text') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not json: {printable(one_line(error))}') from error
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            raise UserError(f'{path} is not in COCO format: it has no list of {key}')
    return content


class _Reader:
    """Takes values out of a file; of its text no more than a chunk and the value in work are there at a time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decoder = json.JSONDecoder(object_hook=_slim)
        self._text = ''
        self._at = 0

    def content(self) -> dict:
        """The object that the file is, the lists in it taken item by item."""
        content = {}
        self._take('{')
        while self._peek() != '}':
            if content:
                self._take(',')
            key = self._value()
            if not isinstance(key, str):
                raise ValueError(f'a key is {key!r:.40}')
            self._take(':')
            content[key] = self._items() if self._peek() == '[' else self._value()
        self._take('}')
        if self._peek():
            raise ValueError('something follows its end')
        return content

    def _items(self) -> list:
        items: list = []
        self._take('[')
        while self._peek() != ']':
            if items:
                self._take(',')
            items.append(self._value())
        self._take(']')
        return items

    def _value(self) -> object:
        self._peek()
        size = CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._read(size):
                    raise
            else:
                # A number at the end of the text may go on in the next chunk, also behind a point.
                if self._text[end : end + 1] not in NUMBER_GOES_ON or not self._read(size):
                    self._at = end
                    return value
            size *= 2  # what is decoded again and again stays a small multiple of the file

    def _peek(self) -> str:
        while True:
            while self._at < len(self._text) and self._text[self._at] in BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read(CHUNK):
                return ''

    def _take(self, expected: str) -> None:
        found = self._peek()
        if found != expected:
            raise ValueError(f'{expected!r} is missing before {found!r}' if found else 'it ends early')
        self._at += 1

    def _read(self, size: int) -> bool:
        more = self._file.read(size)
        if not more:
            return False
        self._text = self._text[self._at :] + more
        self._at = 0
        return True


def _slim(found: dict) -> object:
    if 'bbox' in found and 'image_id' in found and 'category_id' in found:
        box = found['bbox']
        box = tuple(box) if isinstance(box, list) else box  # a list takes a fifth more
        return Object(found['image_id'], found['category_id'], box, found.get('iscrowd', 0))
    return found


def categories_of(found: list, path: Path) -> dict[int, str]:
    """Name by id.

    Raises:
        UserError: if one has no id or name, or an id is there twice.
    """
    categories: dict[int, str] = {}
    for item in found:
        number, name = (item.get('id'), item.get('name')) if isinstance(item, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(name, str):
            raise UserError(f'{path}: a category is not an id and a name: {printable(str(item))}')
        if number in categories:
            raise UserError(f'{path}: category id {number} is there twice')
        categories[number] = name
    return categories


def coordinates(found: object) -> tuple[float, ...] | None:
    """The four numbers of a box; None if it is something else."""
    # Not true or false, nor NaN or infinities, all of which Python's json takes for numbers.
    if isinstance(found, tuple) and len(found) == 4 and all(type(v) in (int, float) and abs(v) < LIMIT for v in found):
        return found
    return None
