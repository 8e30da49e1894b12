"""The attention that a comparison names: ``none``, ``SCSA``, ``SCSA:num_heads=4,identity_init=True``."""

import difflib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.registry import MODELS as MMENGINE_MODELS

from ..registry import MODELS, attention_names
from ..runtime.errors import UserError
from ..runtime.plugin_options import parse_attention

BASELINE = 'none'


@dataclass(frozen=True)
class Candidate:
    """One row of a comparison.

    Args:
        label: As the user wrote it.
        cfg: Config of the attention without ``in_channels``; None for the baseline.
    """

    label: str
    cfg: dict | None

    @property
    def folder(self) -> str:
        """A name for the folder of its runs, different for different labels that differ in more than punctuation."""
        return re.sub(r'[^\w.=+-]+', '_', self.label).strip('_')


def parse_candidates(texts: Sequence[str]) -> list[Candidate]:
    """The candidates in the order of ``texts``.

    Raises:
        UserError: for an unknown name, options that are not ``key=value,...``, an option that the attention does not
            have, or two candidates that are the same.
    """
    candidates = [_parse(text) for text in texts]
    folders = [c.folder for c in candidates]
    for i, candidate in enumerate(candidates):
        if candidate.folder in folders[:i]:
            raise UserError(f'--attention: {candidate.label} is named twice')
    return candidates


def _parse(text: str) -> Candidate:
    name, values = parse_attention(text)
    if name == BASELINE and not values:
        return Candidate(text, None)
    # A dotted name is looked up as in a config, so that plugins of other packages can take part.
    cls = MMENGINE_MODELS.get(name) if '.' in name else MODELS.module_dict.get(name)
    if not inspect.isclass(cls):
        names = [BASELINE, *attention_names()]
        by_lower = {n.lower(): n for n in names}
        near = [by_lower[n] for n in difflib.get_close_matches(name.split('.')[-1].lower(), by_lower, n=3)]
        hint = f'did you mean {", ".join(near)}?' if near else f'there are {", ".join(names)}'
        raise UserError(f'--attention: no attention {name!r}; {hint}')
    allowed = [p for p in inspect.signature(cls).parameters if p != 'in_channels']
    unknown = sorted(values.keys() - set(allowed))
    if unknown:
        raise UserError(f'--attention {text}: {name} has no option {unknown[0]!r}; it has {", ".join(allowed)}')
    return Candidate(text, dict(type=name if '.' in name else f'scsa_mm.{name}', **values))
