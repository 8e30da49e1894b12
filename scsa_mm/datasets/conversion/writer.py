"""A COCO json that is written image by image, and a folder of them that appears when all are complete."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.errors import UserError


class CocoWriter:
    """Images go to the file as they come and annotations beside it, so that memory does not grow with the set.

    Args:
        path: The file to be; a second one with ``.annotations`` appended is there until :meth:`finish`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = 0
        self.boxes = 0
        self.names: set[str] = set()
        self._file = open(path, 'w', encoding='utf-8')  # noqa: SIM115 (closed by finish or by close)
        self._spool = open(f'{path}.annotations', 'w+', encoding='utf-8')  # noqa: SIM115
        self._file.write('{"images":[')

    def add(self, file_name: str, size: tuple[int, int], boxes: list[tuple[int, tuple[float, ...], bool]]) -> None:
        """Append an image and its boxes.

        Args:
            file_name: Relative to the data root.
            size: Width and height in pixels.
            boxes: Category id, (left, top, width, height) in pixels, and whether it is a crowd.
        """
        self.images += 1
        self.names.add(file_name)
        comma = ',' if self.images > 1 else ''
        name = json.dumps(file_name)
        self._file.write(f'{comma}\n{{"id":{self.images},"file_name":{name},"width":{size[0]},"height":{size[1]}}}')
        lines = []
        for category, box, crowd in boxes:
            self.boxes += 1
            left, top, width, height = (_short(v) for v in box)
            lines.append(
                f'{"," if self.boxes > 1 else ""}\n{{"id":{self.boxes},"image_id":{self.images},'
                f'"category_id":{category},"bbox":[{left},{top},{width},{height}],'
                f'"area":{_short(box[2] * box[3])},"iscrowd":{int(crowd)},"segmentation":[]}}'
            )
        self._spool.write(''.join(lines))

    def finish(self, classes: tuple[str, ...], info: dict) -> None:
        """Write the rest; the file is complete and on disk then."""
        categories = [{'id': i, 'name': name} for i, name in enumerate(classes, start=1)]
        self._file.write('],\n"annotations":[')
        self._spool.seek(0)
        shutil.copyfileobj(self._spool, self._file, 1 << 20)
        rest = json.dumps({'categories': categories, 'licenses': [], 'info': info}, separators=(',', ':'))
        self._file.write('],\n' + rest[1:] + '\n')
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        os.unlink(f'{self.path}.annotations')

    def close(self) -> None:
        """Close without completing."""
        self._file.close()
        self._spool.close()


def _short(value: float) -> str:
    return str(int(value)) if value == int(value) else str(round(value, 3))


@contextmanager
def complete_files(folder: Path, names: list[str], overwrite: bool) -> Iterator[Path]:
    """A folder to write ``names`` into; they are moved to ``folder`` if the block ends well, and removed if not.

    Raises:
        UserError: if one of them is there already and ``overwrite`` is false.
    """
    present = [name for name in names if os.path.lexists(folder / name)]
    if present and not overwrite:
        raise UserError(f'{folder / present[0]} exists; --overwrite replaces it')
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f'{folder} is not a folder')
    partial = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', suffix='.partial', dir=folder.parent))
    try:
        yield partial
        folder.mkdir(exist_ok=True)
        for name in names:
            os.replace(partial / name, folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
