"""VisDrone2019-DET: a text file an image, a line of eight numbers an object.

Source of the format: the README of https://github.com/VisDrone/VisDrone2018-DET-toolkit. A line is left, top, width,
height, score, category, truncation, occlusion; some end with a comma. Score 0 means "not considered"; category 0 is an
ignored region and 11 is "others", neither of which is trained on or counted.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ...runtime.errors import UserError
from ..classes import VISDRONE_IGNORED_REGION as REGION
from ..classes import VISDRONE_OTHERS as OTHERS
from .core import Box, Opener, Sample, Source
from .files import IMAGE_SUFFIXES, Damaged, Folder, numbers, read_text, require_folder
from .findings import Findings

SPLITS = ('train', 'val', 'test-dev')
TREE = 'VisDrone2019-DET-{train,val,test-dev}/{images,annotations} below the data root'
FIELDS = 8


def openers(root: Path, splits: Sequence[str] | None, keep_ignored: bool) -> dict[str, Opener]:
    """A function for each split that opens it.

    Args:
        root: The folder with ``VisDrone2019-DET-train`` and so on.
        splits: Some of :data:`SPLITS`; None means those that are there.
        keep_ignored: Objects of score 0 become crowds instead of being left out.

    Raises:
        UserError: if a folder is missing.
    """
    require_folder(root, TREE)
    chosen = splits or [s for s in SPLITS if _folder(root, s).is_dir()]
    if not chosen:
        raise UserError(f'{root} is not VisDrone: expected {TREE}')
    for split in chosen:
        for part in ('images', 'annotations'):
            require_folder(_folder(root, split) / part, TREE)
    return {split: partial(_open, root, split, keep_ignored) for split in chosen}


def _folder(root: Path, split: str) -> Path:
    return root / f'VisDrone2019-DET-{split}'


def _open(root: Path, split: str, keep_ignored: bool, findings: Findings) -> Source:
    images = Folder(_folder(root, split) / 'images', IMAGE_SUFFIXES)
    annotations = Folder(_folder(root, split) / 'annotations', ('.txt',))
    for stem in annotations.stems():
        if images.find(stem) is None:
            findings.drop('annotation file without image', f'{stem}.txt')

    def read(stem: str) -> Sample:
        name = annotations.find(stem)
        if name is None:
            raise Damaged('image without annotation file')
        lines = read_text(annotations.path / name).splitlines()
        boxes = [_box(line, f'{name}:{i}', keep_ignored, findings) for i, line in enumerate(lines, 1) if line.strip()]
        file_name = f'{_folder(root, split).name}/images/{images.find(stem)}'
        return Sample(file_name, [box for box in boxes if box])

    return Source(images.stems(), read, drawn_on='stored')


def _box(line: str, place: str, keep_ignored: bool, findings: Findings) -> Box | None:
    fields = [field.strip() for field in line.split(',')]
    if fields[-1] == '':
        fields.pop()
    values = numbers(fields) if len(fields) == FIELDS else None
    if values is None:
        findings.drop(f'line that is not {FIELDS} numbers', place)
        return None
    left, top, width, height, score, category = values[:6]
    if score not in (0, 1):
        findings.drop('line whose score is neither 0 nor 1', place)
    elif category not in range(REGION, OTHERS + 1):
        findings.drop(f'line whose category is not in {REGION}..{OTHERS}', place)
    elif category == REGION:
        findings.drop('ignored region', place)
    elif category == OTHERS:
        findings.drop('object of category "others"', place)
    elif score == 0 and not keep_ignored:
        findings.drop('object of score 0', place)
    else:
        if score == 0:
            findings.mend('object of score 0, kept as a crowd', place)
        return Box(int(category) - 1, left, top, width, height, place, crowd=score == 0)
    return None
