"""Scenes in CIFAR-100's format, with a few of its hundred classes: pickles of all pictures of a split."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .naming import main_object
from .scenes import CLASSES, Scene

SIDE = 32  # pixels
FILES = {'train': 'train', 'val': 'test'}  # CIFAR-100 has no third split
_FINE = (
    'apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle '
    'caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant '
    'flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man '
    'maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree '
    'plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper '
    'snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train '
    'trout tulip turtle wardrobe whale willow_tree wolf woman worm'
)
_COARSE = (
    'aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices '
    'household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes '
    'large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees '
    'vehicles_1 vehicles_2'
)
FINE, COARSE = tuple(_FINE.split()), tuple(_COARSE.split())
SHAPE_CLASSES = {
    'circle': ('orange', 'fruit_and_vegetables'),
    'square': ('television', 'household_electrical_devices'),
    'triangle': ('mountain', 'large_natural_outdoor_scenes'),
    'star': ('sunflower', 'flowers'),
}
EMPTY_CLASS = ('plain', 'large_natural_outdoor_scenes')


def write_cifar100(folder: Path, splits: Mapping[str, Iterable[Scene]]) -> None:
    """Write ``FOLDER/cifar-100-python/{train,test,meta}``.

    Args:
        folder: Exists already.
        splits: The scenes of ``train`` and ``val``, square, with a side that is a multiple of 32 pixels.
    """
    inner = folder / 'cifar-100-python'
    inner.mkdir()
    for split, scenes in splits.items():
        pictures, names = [], []
        for scene in scenes:
            main = main_object(scene)
            names.append(SHAPE_CLASSES[CLASSES[main.label]] if main else EMPTY_CLASS)
            pictures.append(shrink(scene.image).transpose(2, 0, 1).reshape(-1))
        _write_pickle(
            inner / FILES[split],
            {
                'filenames': [f'{fine}_s_{number:06d}.png' for number, (fine, _) in enumerate(names, start=1)],
                'batch_label': f'{FILES[split]}ing batch 1 of 1',
                'fine_labels': [FINE.index(fine) for fine, _ in names],
                'coarse_labels': [COARSE.index(coarse) for _, coarse in names],
                'data': np.stack(pictures),
            },
        )
    _write_pickle(inner / 'meta', {'fine_label_names': list(FINE), 'coarse_label_names': list(COARSE)})


def shrink(image: np.ndarray) -> np.ndarray:
    """Averages of square blocks, rounded down: uint8 (32 k, 32 k, 3) -> (32, 32, 3)."""
    block = image.shape[0] // SIDE
    blocks = image.reshape(SIDE, block, SIDE, block, 3)
    return (blocks.sum(axis=(1, 3), dtype=np.int64) // block**2).astype(np.uint8)


def _write_pickle(path: Path, content: dict) -> None:
    # Protocol 2 as in the real set, which Python 2 wrote.
    path.write_bytes(pickle.dumps(content, protocol=2))
