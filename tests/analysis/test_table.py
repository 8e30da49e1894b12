"""The same rows for the terminal, as CSV and as Markdown."""

import csv

from rich.console import Console

from scsa_mm.analysis.table import Column, markdown, rich_table, write_csv

ROWS = [
    dict(name='none', size=1234567, problem=''),
    dict(name='a|b', size=None, problem='[1, 2] does not fit'),
]
COLUMNS = [
    Column('name', lambda row: row['name'], 'name'),
    Column('size', lambda row: f'{row["size"]:,}', 'size'),
    Column('never', lambda row: row['never'], 'never'),
    Column('problem', lambda row: row['problem'], 'problem'),
]


def test_markdown():
    assert markdown(ROWS, COLUMNS, 'Title', ['One note.']).splitlines() == [
        '### Title',
        '',
        '| name | size | problem |',
        '| --- | ---: | --- |',
        '| none | 1,234,567 |  |',
        '| a\\|b |  | [1, 2] does not fit |',
        '',
        '- One note.',
    ]


def test_csv_has_all_values_as_they_are(tmp_path):
    path = tmp_path / 'table.csv'
    write_csv(path, [*ROWS, dict(name='c', other=0.125)])
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == dict(name='none', size='1234567', problem='', other='')
    assert rows[1]['problem'] == '[1, 2] does not fit'
    assert rows[2] == dict(name='c', size='', problem='', other='0.125')
    assert [p.name for p in tmp_path.iterdir()] == ['table.csv']


def test_terminal():
    console = Console(width=60, record=True, file=open('/dev/null', 'w'))  # noqa: SIM115
    console.print(rich_table(ROWS, COLUMNS, 'Title'))
    text = console.export_text()
    assert '1,234,567' in text and 'never' not in text
    assert 'a|b: [1, 2] does not fit' in text
