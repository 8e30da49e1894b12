"""What a conversion met: a count of each kind of thing left out, mended or worth knowing, with its first place."""

from rich.table import Table
from rich.text import Text

DROPPED, MENDED, NOTED = 'left out', 'mended', 'noted'
MAX_KINDS = 200  # a file of garbage could make a kind of each line


class Findings:
    """Counts by kind, and the first place of each."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.places: dict[tuple[str, str], str] = {}

    def drop(self, kind: str, place: str) -> None:
        """Something that is not in the converted file."""
        self._add(DROPPED, kind, place)

    def mend(self, kind: str, place: str) -> None:
        """Something that is in the converted file otherwise than in the source."""
        self._add(MENDED, kind, place)

    def note(self, kind: str, place: str) -> None:
        """Something odd that changes nothing."""
        self._add(NOTED, kind, place)

    def _add(self, action: str, kind: str, place: str) -> None:
        key = action, kind
        if key not in self.counts and len(self.counts) >= MAX_KINDS:
            key = action, 'others, of more kinds than are listed'
        self.counts[key] = self.counts.get(key, 0) + 1
        if key not in self.places:
            self.places[key] = printable(place)

    def first(self) -> str:
        """The most frequent kind that was left out, with a place; empty if nothing was."""
        dropped = [key for key in self.counts if key[0] == DROPPED]
        if not dropped:
            return ''
        key = max(dropped, key=self.counts.__getitem__)
        return f'{key[1]} ({self.counts[key]}x, first: {self.places[key]})'

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Action, kind and count, as they go into the converted file."""
        grouped: dict[str, dict[str, int]] = {}
        for (action, kind), count in sorted(self.counts.items()):
            grouped.setdefault(action, {})[kind] = count
        return grouped

    def table(self, title: str) -> Table:
        """A row for each kind, the most frequent first."""
        # Text, as names may hold what rich takes for its markup.
        table = Table(title=Text(title), title_justify='left')
        table.add_column('')
        table.add_column('what')
        table.add_column('count', justify='right')
        table.add_column('first place', overflow='fold')
        for (action, kind), count in sorted(self.counts.items(), key=lambda row: (row[0][0], -row[1])):
            table.add_row(action, Text(kind), f'{count:,}', Text(self.places[action, kind]))
        return table


def printable(text: str, limit: int = 120) -> str:
    """Text of a file on one line, without control characters, and not long."""
    clean = ''.join(c if c.isprintable() else '?' for c in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + '...'
