"""ExDark: photographs in little light, in a folder for each of twelve classes, with Piotr's bbGt annotations.

Source of the format: https://github.com/cs-chan/Exclusively-Dark-Image-Dataset (its Dataset and Groundtruth folders).
``imageclasslist.txt`` has for each image its class, its light, indoor or outdoor, and its split. The letter case of
suffixes differs between this list, the images and the annotations, so files are found by name without suffix.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...runtime.errors import UserError
from ..classes import EXDARK
from .core import Box, ClassNames, Opener, Sample, Source
from .files import IMAGE_SUFFIXES, Damaged, Folder, inside, numbers, read_text, require_folder
from .findings import Findings, printable

SPLITS = ('train', 'val', 'test')  # numbered from 1 in the list
LIST = 'imageclasslist.txt'
TREE = f'ExDark/CLASS/*, ExDark_Annno/CLASS/*.txt and {LIST} below the data root'
HEADER = '% bbGt version=3'
# Class, left, top, width, height, and seven numbers of the labelling tool.
FIELDS = 12
LIMITS = (len(EXDARK), 10, 2, len(SPLITS))  # of class, light, indoor/outdoor and split; all count from 1


class Row(NamedTuple):
    """A line of the list: name without suffix, and label of the class in whose folder the image is."""

    stem: str
    label: int


def openers(root: Path) -> dict[str, Opener]:
    """A function for each split that opens it.

    Args:
        root: The folder with ``ExDark``, its annotations and the list.

    Raises:
        UserError: if one of them is missing, or the list or the folders' contents are ambiguous.
    """
    require_folder(root, TREE)
    require_folder(root / 'ExDark', TREE)
    # The archive has the misspelt name; who unpacks by hand may mend it.
    annotations = next((p for p in (root / 'ExDark_Annno', root / 'ExDark_Anno') if p.is_dir()), None)
    if annotations is None:
        raise UserError(f'{root / "ExDark_Annno"} does not exist; expected {TREE}')
    rows = read_list(root / LIST)
    images = [_class_folder(root / 'ExDark', name, IMAGE_SUFFIXES, False) for name in EXDARK]
    texts = [_class_folder(annotations, name, ('.txt',), True) for name in EXDARK]
    return {split: partial(_open, root, rows[split], images, texts) for split in SPLITS}


def read_list(path: Path) -> dict[str, list[Row]]:
    """The rows of each split.

    Raises:
        UserError: if the list cannot be read, has a line that is none of its kind, or a name twice.
    """
    try:
        lines = read_text(path).splitlines()
    except Damaged as damage:
        raise UserError(f'{path} cannot be used: {damage}; expected {TREE}') from damage
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    seen: dict[str, int] = {}
    for count, line in enumerate(lines, start=1):
        name, *fields = line.split() or ['']
        if not name or (count == 1 and name == 'Name'):
            continue
        values = numbers(fields)
        if values is None or len(values) != len(LIMITS) or not _are_within(values):
            raise UserError(f'{path}:{count}: not a name and four numbers up to {LIMITS}: {printable(line)!r}')
        stem = Path(name).stem.lower()
        if stem in seen:
            raise UserError(f'{path}:{count}: {printable(name)} is in line {seen[stem]} too')
        try:
            inside(name)
        except Damaged as damage:
            raise UserError(f'{path}:{count}: {damage}: {printable(name)!r}') from damage
        seen[stem] = count
        rows[SPLITS[int(values[3]) - 1]].append(Row(stem, int(values[0]) - 1))
    return rows


def _are_within(values: list[float]) -> bool:
    return all(value in range(1, most + 1) for value, most in zip(values, LIMITS, strict=True))


def _are_within(values: list[float]) -> bool:
    return all(value in range(1, most + 1) for value, most in zip(values, LIMITS, strict=True))


def _class_folder(parent: Path, name: str, suffixes: tuple[str, ...], after_images: bool) -> Folder:
    matches = [p for p in parent.iterdir() if p.name.lower() == name.lower() and p.is_dir()]
    if len(matches) != 1:
        raise UserError(f'{parent} has {len(matches)} folders for the class {name}; expected {TREE}')
    folder = Folder(matches[0], suffixes, after_images)
    folder.check_twins()
    return folder


def _open(root: Path, rows: list[Row], images: list[Folder], texts: list[Folder], findings: Findings) -> Source:
    names = ClassNames(EXDARK)

    def read(row: Row) -> Sample:
        folder, annotations = images[row.label], texts[row.label]
        image, text = folder.find(row.stem), annotations.find(row.stem)
        if image is None:
            raise Damaged('image that is missing')
        if text is None:
            raise Damaged('image without annotation file')
        if Path(text).stem != image:
            findings.note('annotation file whose name has another suffix than the image', text)
        first, *lines = read_text(annotations.path / text).splitlines() or ['']
        if first.strip() != HEADER:
            raise Damaged(f'annotation file that does not begin with "{HEADER}"')
        boxes = [_box(line, f'{text}:{i}', names, findings) for i, line in enumerate(lines, 2) if line.strip()]
        return Sample(f'{folder.path.relative_to(root).as_posix()}/{image}', [box for box in boxes if box])

    return Source(rows, read, drawn_on='stored')


def _box(line: str, place: str, names: ClassNames, findings: Findings) -> Box | None:
    name, *fields = line.split()
    values = numbers(fields)
    if values is None or len(values) != FIELDS - 1:
        findings.drop(f'line that is not a class and {FIELDS - 1} numbers', place)
        return None
    label = names.find(name, place, findings)
    return None if label is None else Box(label, *values[:4], place)
