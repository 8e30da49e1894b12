"""One table, three forms: for the terminal, as CSV, as Markdown."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# One row: plain numbers and texts by name, as the CSV has them; None where there is nothing.
Row = dict[str, object]


@dataclass(frozen=True)
class Column:
    """A column as people read it.

    Args:
        heading: With the unit.
        text: The cell of a row that has what it needs.
        needs: The value without which the cell is empty.
    """

    heading: str
    text: Callable[[Row], str]
    needs: str


def cells(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[list[Column], list[list[str]]]:
    """The columns that are not empty in every row, and the texts of each row."""
    used = [c for c in columns if any(row.get(c.needs) not in (None, '') for row in rows)]
    return used, [['' if row.get(c.needs) in (None, '') else c.text(row) for c in used] for row in rows]


def rich_table(rows: Sequence[Row], columns: Sequence[Column], title: str) -> Group:
    """For the terminal; the reasons of problems, which are long, stand in lines below the table."""
    used, lines = cells(rows, [c for c in columns if c.needs != 'problem'])
    problems = [_reason(lines[i][0], row['problem']) for i, row in enumerate(rows) if row.get('problem')]
    table = Table(
        title=escape(title),
        title_justify='left',
        title_style='bold',
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(used):
        table.add_column(column.heading, justify='right' if i else 'left', no_wrap=not i)
    for line in lines:
        table.add_row(*map(escape, line))
    return Group(table, *(Text(problem, style='red') for problem in problems))


def _reason(name: str, problem: str) -> str:
    return problem if problem.startswith(f'{name}: ') else f'{name}: {problem}'


def markdown(rows: Sequence[Row], columns: Sequence[Column], title: str, notes: Sequence[str]) -> str:
    used, lines = cells(rows, columns)
    heading = [f'### {title}', '', _line([c.heading for c in used])]
    rule = _line(['---' if i == 0 or c.needs == 'problem' else '---:' for i, c in enumerate(used)])
    return '\n'.join([*heading, rule, *map(_line, lines), '', *(f'- {note}' for note in notes), ''])


def _line(texts: Sequence[str]) -> str:
    return '| ' + ' | '.join(text.replace('|', '\\|') for text in texts) + ' |'


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All values of the rows, unrounded; an empty cell where there is none."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    part = path.with_name(path.name + '.part')
    with part.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, names, restval='')
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + '.part')
    part.write_text(text, encoding='utf-8')
    os.replace(part, path)
