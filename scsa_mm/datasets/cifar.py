"""CIFAR-100 from files that have other check sums than the real ones, such as a miniature set."""

from mmpretrain.datasets import CIFAR100

from ..registry import DATASETS


@DATASETS.register_module()
class UncheckedCIFAR100(CIFAR100):
    """MMPretrain's CIFAR100 without its check sums and without its download.

    The check sums protect from files that were cut off or exchanged, and reading a pickle runs what is in it: use this
    for files that you made or trust.

    Args:
        data_root: The folder that holds ``cifar-100-python/{train,test}``.
        split: ``train`` or ``test``.
        kwargs: As for MMPretrain's CIFAR100, without ``download``.
    """

    train_list = [(name, None) for name, _ in CIFAR100.train_list]
    test_list = [(name, None) for name, _ in CIFAR100.test_list]

    # Without ``download`` in the signature the tools check that the folder exists before they build anything.
    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        super().__init__(data_root=data_root, split=split, download=False, **kwargs)
