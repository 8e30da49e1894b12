"""What the constructors of the attention modules check, each once, with the rule, the value and the way out."""

from collections.abc import Sequence


def check_positive_int(owner: str, name: str, value: int) -> None:
    """Raise TypeError or ValueError unless ``value`` is an int of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f'{owner}: {name} must be an int, got {value!r}')
    if value < 1:
        raise ValueError(f'{owner}: {name} must be at least 1, got {value}')


def check_divisible(owner: str, in_channels: int, by: int, name: str | None = None, times: int = 1) -> None:
    """Raise ValueError unless ``in_channels`` is a multiple of ``times * by``, naming the values to choose from."""
    if in_channels % (times * by) == 0:
        return
    if name is None:
        raise ValueError(f'{owner}: in_channels must be a multiple of {by}, got {in_channels}')
    divisors = [n for n in range(1, in_channels // times + 1) if in_channels % (times * n) == 0]
    rule = name if times == 1 else f'{times} * {name}'
    raise ValueError(
        f'{owner}: in_channels must be a multiple of {rule}, got {in_channels} and {by}; choose {name} from {divisors}'
    )


def check_reduction(owner: str, in_channels: int, reduction: int) -> None:
    """Raise TypeError or ValueError unless ``in_channels // reduction`` leaves a hidden channel."""
    check_positive_int(owner, 'in_channels', in_channels)
    check_positive_int(owner, 'reduction', reduction)
    if reduction > in_channels:
        raise ValueError(
            f'{owner}: reduction must be at most in_channels, got {reduction} and {in_channels}, which leaves no '
            f'hidden channel; choose reduction from 1 to {in_channels}'
        )


def check_kernel_size(owner: str, kernel_size: int) -> None:
    """Raise TypeError or ValueError unless ``kernel_size`` is an odd positive int."""
    check_positive_int(owner, 'kernel_size', kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f'{owner}: kernel_size must be odd, so that the size stays the same, got {kernel_size}')


def check_choice(owner: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f'{owner}: {name} must be one of {", ".join(map(repr, choices))}, got {value!r}')


def check_kernel_sizes(owner: str, kernel_sizes: Sequence[int]) -> None:
    """Raise ValueError unless there are four odd positive ints."""
    ok = not isinstance(kernel_sizes, (str, int)) and len(kernel_sizes) == 4
    if not (ok and all(isinstance(k, int) and k > 0 and k % 2 == 1 for k in kernel_sizes)):
        raise ValueError(f'{owner}: kernel_sizes must be four odd positive ints, got {kernel_sizes!r}')


def check_probability(owner: str, name: str, value: float) -> None:
    """Raise ValueError unless 0 <= ``value`` < 1."""
    if not 0 <= value < 1:
        raise ValueError(f'{owner}: {name} must be in [0, 1), got {value}')
