"""Damaged annotations and images: each kind ends in a count or in one clear error, and never in a wrong file."""

import hashlib
import json
import os
import re
import signal
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from scsa_mm.datasets import checking
from scsa_mm.runtime.errors import UserError

from .raw_sets import MAKERS, OBJECT, SIZE, boxes_of, convert_set, found, image_bytes, put, xml

TRAIN = {
    'visdrone': ('VisDrone2019-DET-train/images/A.jpg', 'VisDrone2019-DET-train/annotations/A.txt'),
    'exdark': ('ExDark/Dog/A.jpg', 'ExDark_Annno/Dog/A.jpg.txt'),
    'flir': ('images_thermal_train/data/A.jpg', 'images_thermal_train/coco.json'),
    'voc': ('JPEGImages/A.jpg', 'Annotations/A.xml'),
}


@pytest.fixture(autouse=True)
def no_hang():
    """A test that waits, for a named pipe say, is stopped."""

    def stop(*_):
        raise TimeoutError('hangs')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob('*'))
        if p.is_file() and p.parent.name != 'coco' and p.stat().st_size < 1 << 20
    }


def check_json(path: Path, root: Path) -> None:
    """What must hold of any converted file."""
    content = json.loads(path.read_text())
    sizes = {}
    for image in content['images']:
        pixels = cv2.imread(str(root / image['file_name']), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (image['height'], image['width'])
        sizes[image['id']] = image['width'], image['height']
    assert len(sizes) == len(content['images']) == len({i['file_name'] for i in content['images']})
    names = {c['id'] for c in content['categories']}
    assert names == set(range(1, len(names) + 1))
    for item in content['annotations']:
        left, top, width, height = item['bbox']
        assert left >= 0 and top >= 0 and width >= 1 and height >= 1
        assert left + width <= sizes[item['image_id']][0] and top + height <= sizes[item['image_id']][1]
        assert item['category_id'] in names and item['iscrowd'] in (0, 1)
    assert [a['id'] for a in content['annotations']] == list(range(1, len(content['annotations']) + 1))


# --- ways to damage


def image(content: bytes):
    return lambda root, files: put(root / files[0], content)


def text(content: str | bytes):
    return lambda root, files: put(root / files[1], content)


def line(content: str):
    """One more line or object in the annotation of A."""
    return lambda root, files: put(root / files[1], (root / files[1]).read_bytes() + content.encode())


def instead(which: int, make):
    def damage(root, files):
        (root / files[which]).unlink()
        make(root / files[which])

    return damage


def gone(which: int):
    return instead(which, lambda path: None)


def flir_text(change):
    return lambda root, files: put(root / files[1], change((root / files[1]).read_text()))


def flir_json(change):
    def damage(root, files):
        content = json.loads((root / files[1]).read_text())
        put(root / files[1], json.dumps(change(content) or content))

    return damage


def flir_box(**values):
    return flir_json(lambda c: c['annotations'][0].update(values))


def flir_image(**values):
    return flir_json(lambda c: c['images'][0].update(values))


def voc_object(old: str, new: str):
    return text(xml('A', OBJECT.replace(old, new)))


def file(name: str, content: str | bytes):
    return lambda root, files: put(root / name, content)


def listed(old: str, new: str):
    def damage(root, files):
        put(root / 'imageclasslist.txt', (root / 'imageclasslist.txt').read_text().replace(old, new))

    return damage


def without(name: str):
    def damage(root, files):
        (root / name).rename(root / 'elsewhere')

    return damage


def no_objects(root, files):
    for name in 'Abc':
        put(root / f'Annotations/{name}.xml', xml(name, ''))


def bomb() -> bytes:
    """A PNG whose header promises 10^10 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def sparse(path: Path) -> None:
    with open(path, 'wb') as handle:
        handle.truncate(40 << 20)


def broken_exif() -> bytes:
    data = image_bytes(orientation=6)
    start = data.index(b'Exif\0\0') + 6
    return data[:start] + b'\xff' * 8 + data[start + 8 :]


VISDRONE_LINES = {
    'seven fields': ('1,2,10,20,1,4,0', 'left out: line that is not 8 numbers'),
    'nine fields': ('1,2,10,20,1,4,0,0,7', 'left out: line that is not 8 numbers'),
    'words for numbers': ('a,b,c,d,e,f,g,h', 'left out: line that is not 8 numbers'),
    'nan': ('nan,2,10,20,1,4,0,0', 'left out: line that is not 8 numbers'),
    'infinity': ('1e999,2,10,20,1,4,0,0', 'left out: line that is not 8 numbers'),
    'number of 400 digits': ('9' * 400 + ',2,10,20,1,4,0,0', 'left out: line that is not 8 numbers'),
    'digits with underscores': ('1_0,2,10,20,1,4,0,0', 'left out: line that is not 8 numbers'),
    'digits of another script': ('\u0661,2,10,20,1,4,0,0', 'left out: line that is not 8 numbers'),
    'rich markup': ('[/red],2,10,20,1,4,0,0', 'left out: line that is not 8 numbers'),
    'category 12': ('1,2,10,20,1,12,0,0', 'left out: line whose category is not in 0..11'),
    'category -1': ('1,2,10,20,1,-1,0,0', 'left out: line whose category is not in 0..11'),
    'category 1.5': ('1,2,10,20,1,1.5,0,0', 'left out: line whose category is not in 0..11'),
    'score of a detection': ('1,2,10,20,0.9,4,-1,-1', 'left out: line whose score is neither 0 nor 1'),
    'no width': ('1,2,0,20,1,4,0,0', 'left out: box of no area'),
    'negative height': ('1,2,10,-20,1,4,0,0', 'left out: box of no area'),
    'box outside': ('100,2,10,20,1,4,0,0', 'left out: box outside the image'),
    'box over the border': ('50,40,30,30,1,4,0,0', 'mended: box cut at the border of the image'),
    'box that leaves half a pixel': ('63.5,2,10,20,1,4,0,0', 'left out: box thinner than a pixel'),
    'box twice': ('1,2,10,20,1,4,0,0', 'left out: box that is there twice'),
}
IMAGES = {
    'image missing': (gone(0), 'missing|without image|no image'),
    'image empty': (image(b''), 'left out: image file that is empty'),
    'image that is a page of HTML': (image(b'<html>not found</html>' * 50), 'left out: file that is no image'),
    'image of zeros': (image(bytes(5000)), 'left out: file that is no image'),
    'image that is a GIF': (image(image_bytes(kind='GIF')), 'left out: file that is no image'),
    'JPEG cut in the middle': (image(image_bytes()[:1500]), 'left out: image that is cut short'),
    'JPEG without its last bytes': (image(image_bytes()[:-40]), 'left out: image that is cut short'),
    'JPEG cut in its header': (image(image_bytes()[:100]), 'left out: file that is no image'),
    'PNG cut in the middle': (image(image_bytes(kind='PNG')[:3000]), 'left out: image that is cut short'),
    'image of too many pixels': (image(bomb()), 'left out: image of more pixels than can be loaded'),
    'image with broken EXIF': (image(broken_exif()), 'fine'),
    'EXIF orientation 9': (image(image_bytes(orientation=9)), 'fine'),
    'folder named as an image': (instead(0, Path.mkdir), 'missing|without image'),
    'pipe named as an image': (instead(0, os.mkfifo), 'missing|without image'),
    'link to nowhere as an image': (instead(0, lambda p: p.symlink_to('nowhere')), 'missing|without image'),
    'link to itself as an image': (instead(0, lambda p: p.symlink_to(p)), 'missing|without image'),
}
TEXTS = {
    'annotation missing': (gone(1), 'left out: image without annotation file'),
    'annotation is a folder': (instead(1, Path.mkdir), 'left out: image without annotation file'),
    'annotation is a pipe': (instead(1, os.mkfifo), 'left out: image without annotation file'),
    'annotation of 40 MB': (instead(1, sparse), 'left out: annotation file above 32 MB'),
    'annotation is a JPEG': (text(image_bytes()), 'left out: annotation file that is not'),
    'annotation in UTF-16': (text('1,2,3'.encode('utf-16')), 'left out: annotation file that is not'),
    'annotation with a zero byte': (text('1,2\0,10,20,1,4,0,0'), 'left out: annotation file that is not'),
}

CASES = [
    *((f'visdrone: {name}', 'visdrone', line(f'{content}\n'), end) for name, (content, end) in VISDRONE_LINES.items()),
    *((f'{d}: {name}', d, damage, end) for name, (damage, end) in IMAGES.items() for d in MAKERS),
    *((f'{d}: {name}', d, how, end) for name, (how, end) in TEXTS.items() for d in ('visdrone', 'exdark', 'voc')),
    # VisDrone
    ('visdrone: byte order mark', 'visdrone', text(b'\xef\xbb\xbf1,2,10,20,1,4,0,0\r\n'), 'fine'),
    ('visdrone: lines end with commas', 'visdrone', text('1,2,10,20,1,4,0,0,\n\n'), 'fine'),
    (
        *('visdrone: annotation without image', 'visdrone'),
        file('VisDrone2019-DET-train/annotations/z.txt', '1,2,3,4,1,1,0,0'),
        'left out: annotation file without image',
    ),
    (
        *('visdrone: image twice, in two formats', 'visdrone'),
        file('VisDrone2019-DET-train/images/A.png', image_bytes(kind='PNG')),
        'error: A.jpg and A.png: keep one',
    ),
    (
        *('visdrone: annotations are elsewhere', 'visdrone'),
        without('VisDrone2019-DET-train/annotations'),
        'error: annotations does not exist; expected',
    ),
    # ExDark
    *(
        (f'exdark: {name}', 'exdark', how, end)
        for name, how, end in [
            ('list is missing', gone(1) and without('imageclasslist.txt'), 'error: cannot be used'),
            ('row of four fields', listed('A.jpg 9 1 1 1', 'A.jpg 9 1 1'), 'error: txt:2: not a name and four'),
            ('class 13', listed('A.jpg 9', 'A.jpg 13'), 'error: txt:2: not a name and four'),
            ('split 4', listed('A.jpg 9 1 1 1', 'A.jpg 9 1 1 4'), 'error: txt:2: not a name and four'),
            ('name twice', listed('b.jpg', 'a.PNG'), 'error: a.PNG is in line 2 too'),
            ('name that leads outside', listed('A.jpg', '../../A.jpg'), 'error: name that leads outside'),
            ('list is a JPEG', file('imageclasslist.txt', image_bytes()), 'error: not UTF-8'),
            ('list is empty', file('imageclasslist.txt', ''), 'error: has no images'),
            ('class folder is missing', without('ExDark/Boat'), 'error: 0 folders for the class Boat'),
            (
                'class folder in two letter cases',
                lambda r, f: (r / 'ExDark/dog').mkdir(),
                'error: 2 folders for the class Dog',
            ),
            ('twin in other letter case', file('ExDark/Dog/a.JPG', image_bytes()), 'error: A.jpg and a.JPG: keep one'),
            ('no version line', text('Dog 1 2 10 20 0 0 0 0 0 0 0\n'), 'left out: annotation file that does not begin'),
            ('empty annotation', text(''), 'left out: annotation file that does not begin'),
            ('other version', text('% bbGt version=2\n'), 'left out: annotation file that does not begin'),
            ('five fields', line('Dog 1 2 10 20\n'), 'left out: line that is not a class and 11'),
            ('unknown class', line('Wolf 1 2 10 20 0 0 0 0 0 0 0\n'), "left out: box of class 'Wolf', not in the list"),
            ('class in other case', line('dOG 1 2 9 9 0 0 0 0 0 0 0\n'), 'mended: class name in other letter case'),
        ]
    ),
    # FLIR
    *(
        (f'flir: {name}', 'flir', how, end)
        for name, how, end in [
            ('json is cut', text('{"images": [{"id": 1'), 'error: is not json'),
            ('json is empty', text(''), 'error: is not json'),
            ('json is a JPEG', text(image_bytes()), 'error: not UTF-8'),
            ('json nested deeply', text('{"images": ' + '[' * 200_000), 'error: is not json'),
            ('number of 5000 digits', text('{"images": [' + '1' * 5000 + ']}'), 'error: is not json'),
            ('json is a list', text('[]'), 'error: is not json'),
            ('json has no lists', text('{"info": {}}'), 'error: no list of images'),
            ('json goes on', flir_text(lambda t: t + '{}'), 'error: something follows its end'),
            ('comma missing', flir_text(lambda t: t.replace('}, {', '} {', 1)), 'error: is not json'),
            ('comma too many', flir_text(lambda t: t.replace('}]', '},]', 1)), 'error: is not json'),
            ('json is a pipe', instead(1, os.mkfifo), 'error: coco.json does not exist'),
            ('no categories', flir_json(lambda c: c.pop('categories') and None), 'error: no list of categories'),
            ('images is an object', flir_json(lambda c: c.update(images={})), 'error: no list of images'),
            (
                'category without name',
                flir_json(lambda c: c['categories'][0].pop('name') and None),
                'error: a category is not an id and a name',
            ),
            (
                'category id twice',
                flir_json(lambda c: c['categories'][0].update(id=2)),
                'error: category id 2 is there twice',
            ),
            (
                'class is not declared',
                flir_json(lambda c: c['categories'][0].update(name='persons')),
                "error: no class 'person'; it has persons",
            ),
            ('image id twice', flir_image(id=1), 'error: image id 1 is there twice'),
            ('image twice', flir_image(file_name='data/b.jpg'), 'left out: image that is listed twice'),
            ('image is a number', flir_json(lambda c: c['images'].append(3)), 'left out: image without id'),
            ('absolute name', flir_image(file_name='/etc/passwd'), 'left out: name that leads outside'),
            ('name upwards', flir_image(file_name='data/../../../x.jpg'), 'left out: name that leads outside'),
            ('name with a backslash', flir_image(file_name='..\\x.jpg'), 'left out: name that leads outside'),
            ('name with a zero byte', flir_image(file_name='data/\0.jpg'), 'left out: name that leads outside'),
            ('name with half a character', flir_image(file_name='data/\ud800.jpg'), 'left out: name that leads out'),
            ('name in another folder', flir_image(file_name='raw/A.jpg'), 'left out: image that is missing'),
            ('name in other letter case', flir_image(file_name='data/a.JPG'), 'mended: image whose name has another'),
            ('other size', flir_image(width=640, height=512), 'left out: image of another size'),
            ('width and height swapped', flir_image(width=48, height=64), 'noted: annotation that states width and h'),
            ('size is text', flir_image(width='64'), 'noted: annotation that states no size'),
            ('box of an unknown image', flir_box(image_id=99), 'left out: annotation of an image that is not listed'),
            ('image id is a list', flir_box(image_id=[1]), 'left out: annotation of an image that is not listed'),
            ('undeclared category', flir_box(category_id=99), 'left out: annotation of a category that is not'),
            ('category is a list', flir_box(category_id=[]), 'left out: annotation of a category that is not'),
            ('box of three numbers', flir_box(bbox=[1, 2, 3]), 'left out: box that is not four numbers'),
            ('box of texts', flir_box(bbox=['1', '2', '3', '4']), 'left out: box that is not four numbers'),
            ('box with NaN', flir_box(bbox=[float('nan'), 2, 3, 4]), 'left out: box that is not four numbers'),
            ('box with infinity', flir_box(bbox=[float('inf'), 2, 3, 4]), 'left out: box that is not four numbers'),
            ('box of truths', flir_box(bbox=[True, 2, 3, 4]), 'left out: box that is not four numbers'),
            ('box is null', flir_box(bbox=None), 'left out: box that is not four numbers'),
            ('box of 400 digits', flir_box(bbox=[10**400, 2, 3, 4]), 'left out: box that is not four numbers'),
            ('iscrowd 2', flir_box(iscrowd=2), 'left out: annotation whose iscrowd'),
            (
                'annotation without box',
                flir_json(lambda c: c['annotations'][0].pop('bbox') and None),
                'left out: annotation without image_id',
            ),
        ]
    ),
    # VOC
    *(
        (f'voc: {name}', 'voc', how, end)
        for name, how, end in [
            ('XML is cut', text(xml('A')[:120]), 'left out: annotation file that is not XML'),
            ('XML is empty', text(''), 'left out: annotation file that is not XML'),
            (
                'entities that explode',
                text('<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'),
                'left out: XML with a document type',
            ),
            (
                'entity that reads a file',
                text('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'),
                'left out: XML with a document type',
            ),
            ('XML of another kind', text('<svg/>'), 'left out: XML that is not an annotation'),
            ('XML nested deeply', text('<annotation>' * 100_000), 'left out: annotation file that is not XML'),
            (
                'unknown encoding',
                text('<?xml version="1.0" encoding="klingon"?>' + xml('A')),
                'left out: annotation file that is not XML',
            ),
            ('object without name', voc_object('<name>dog</name>', ''), 'left out: object without a name'),
            ('object without box', voc_object('bndbox', 'polygon'), 'left out: object without a box'),
            (
                'object with two boxes',
                voc_object('</object>', '<bndbox/></object>'),
                'left out: object without a box, or with several',
            ),
            ('box without xmax', voc_object('xmax', 'right'), 'left out: box that is not four numbers'),
            ('box of words', voc_object('<xmax>11', '<xmax>eleven'), 'left out: box that is not four numbers'),
            ('box is a point', voc_object('<xmax>11', '<xmax>2'), 'left out: box of no area'),
            ('corners swapped', voc_object('<xmax>11', '<xmax>1'), 'left out: box of no area'),
            ('difficult 7', voc_object('<difficult>0', '<difficult>7'), 'left out: object whose difficult'),
            ('annotation of another image', text(xml('z')), 'noted: annotation that names another image'),
            ('other size', text(xml('A', size=(640, 480))), 'left out: image of another size'),
            ('width and height swapped', text(xml('A', size=(48, 64))), 'noted: annotation that states width and'),
            ('size 0', text(xml('A', size=(0, 0))), 'noted: annotation that states no size'),
            ('name that leads outside', file('ImageSets/Main/train.txt', '../../x\nb\n'), 'left out: name that leads'),
            ('name twice', file('ImageSets/Main/train.txt', 'A\nb\nA\n'), 'left out: name that is listed twice'),
            (
                'name in two letter cases',
                file('ImageSets/Main/train.txt', 'A\na\nb\n'),
                'left out: image that is there already',
            ),
            ('name in two splits', file('ImageSets/Main/val.txt', 'A\nc\n'), 'noted: image that is in another of'),
            ('name of no image', file('ImageSets/Main/train.txt', 'q\nb\n'), 'left out: image that is missing'),
            ('list is a JPEG', file('ImageSets/Main/train.txt', image_bytes()), 'error: cannot be used'),
            ('list is empty', file('ImageSets/Main/train.txt', '\n'), 'error: has no images'),
            ('classes in two cases', voc_object('dog', 'Dog'), 'error: classes must be different names'),
            ('image twice', file('JPEGImages/A.jpeg', image_bytes()), 'error: A.jpeg and A.jpg: keep one'),
            ('no object at all', no_objects, 'error: no class'),
        ]
    ),
]


@pytest.mark.parametrize('dataset, damage, end', [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_damage_is_counted_or_named_in_one_line(dataset, damage, end, tmp_path):
    root = tmp_path / 'set'
    MAKERS[dataset](root)
    damage(root, TRAIN[dataset])
    before = digest(root)
    if end.startswith('error: '):
        with pytest.raises(UserError) as caught:
            convert_set(dataset, root)
        message = str(caught.value)
        assert re.search(end.removeprefix('error: '), message) and '\n' not in message
        assert not (root / 'coco').exists()
    else:
        results = convert_set(dataset, root)
        kinds = found(results['train'])
        assert (not kinds) if end == 'fine' else any(re.search(end, kind) for kind in kinds), kinds
        # What is whole beside the damage is converted nevertheless.
        assert [1, 2, 10, 20, 0] in [box[1:] for box in boxes_of(results['train'])]
        for result in results.values():
            check_json(result.path, root)
        with_a = 'mended' in end or 'noted' in end or end == 'fine'
        assert results['train'].images == 2 or not with_a
    assert digest(root) == before
    assert not list(root.glob('.*'))


# --- the same by the check


def coco(root: Path) -> None:
    (root / 'train2017').mkdir(parents=True)
    content = {'images': [], 'annotations': [], 'categories': [{'id': 3, 'name': 'car'}]}
    for i, name in enumerate('Ab'):
        put(root / f'train2017/{name}.jpg', image_bytes())
        content['images'].append({'id': i, 'file_name': f'{name}.jpg', 'width': SIZE[0], 'height': SIZE[1]})
        content['annotations'].append({'id': i, 'image_id': i, 'category_id': 3, 'bbox': [1, 2, 10, 20]})
    put(root / 'annotations/instances_train2017.json', json.dumps(content))


def ade20k(root: Path) -> None:
    for name in 'Ab':
        put(root / f'images/training/{name}.jpg', image_bytes())
        put(root / f'annotations/training/{name}.png', png(np.full(SIZE[::-1], 3, np.uint8)))


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode('.png', pixels)[1].tobytes()


COCO = ('train2017/A.jpg', 'annotations/instances_train2017.json')
ADE20K = ('images/training/A.jpg', 'annotations/training/A.png')
CHECKED = [
    ('coco', gone(0), 'image that is missing', 1),
    ('coco', instead(0, Path.mkdir), 'image that is missing', 1),
    ('coco', flir_image(file_name='../../x.jpg'), 'name that leads outside', 1),
    ('coco', flir_image(width=0), 'image without width or height', 1),
    ('coco', flir_image(id=1), 'image id that is there twice', 1),
    ('coco', flir_image(id=None), 'image without id or file_name', 1),
    ('coco', flir_box(image_id=77), 'annotation of an image that is not listed', 0),
    ('coco', flir_box(category_id='car'), 'annotation of a category that is not declared', 0),
    ('coco', flir_box(bbox=[1, 2, 0, 4]), 'box of no area', 0),
    ('coco', flir_box(bbox=[50, 2, 40, 4]), 'box that leaves the image', 0),
    ('coco', flir_box(bbox=[1, 2, float('nan'), 4]), 'box that is not four numbers', 0),
    ('ade20k', gone(1), 'image without labels', 1),
    ('ade20k', gone(0), 'labels without image', 0),
    ('ade20k', text(png(np.full(SIZE[::-1], 151, np.uint8))), 'labels above 150', 1),
    ('ade20k', text(png(np.full(SIZE, 3, np.uint8))), 'labels of another size', 1),
    ('ade20k', text(png(np.full(SIZE[::-1], 3, np.uint16))), 'labels that are no png of one channel', 1),
    ('ade20k', text(png(np.zeros((*SIZE[::-1], 3), np.uint8))), 'labels that are no png of one channel', 1),
    ('ade20k', text(png(np.random.default_rng(0).integers(0, 9, SIZE[::-1], np.uint8))[:400]), 'cut short', 1),
    ('ade20k', text(b'no picture'), 'file that is no image', 1),
    ('ade20k', image(image_bytes()[:900]), 'image that is cut short', 1),
]


@pytest.mark.parametrize('dataset, damage, kind, unusable', CHECKED, ids=[f'{c[0]}-{c[2]}' for c in CHECKED])
def test_the_check_counts_what_is_damaged(dataset, damage, kind, unusable, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, '_ade20k_names', lambda: [str(i) for i in range(1, 151)])
    {'coco': coco, 'ade20k': ade20k}[dataset](tmp_path)
    damage(tmp_path, COCO if dataset == 'coco' else ADE20K)
    (split,) = checking.read(tmp_path, checking.detect(tmp_path))
    assert any(kind in found_kind for _, found_kind in split.findings.counts), split.findings.counts
    assert split.unusable == unusable
    assert split.counts['car' if dataset == 'coco' else '3'] >= 1
