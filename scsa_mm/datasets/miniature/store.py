"""A generated set in its folder: whole or not there, never over something else."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

MANIFEST = 'miniature.json'
GENERATOR = 1  # raise it when the same parameters give other files


def is_stored(out: Path, parameters: dict) -> bool:
    """Whether ``out`` holds the set with these parameters already.

    Raises:
        ValueError: if ``out`` holds anything else, or is not a folder.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise ValueError(f'{out} is not a folder; choose another one')
    if not any(out.iterdir()):
        return False
    found = _read_manifest(out / MANIFEST)
    if found is None:
        raise ValueError(f'{out} is not empty and holds no generated set; choose another folder')
    wanted = _manifest(parameters)
    if found == wanted:
        return True
    other = ', '.join(f'{k} {found.get(k)} (asked for {v})' for k, v in wanted.items() if found.get(k) != v)
    raise ValueError(f'{out} holds a set with {other}; choose another folder or remove this one')


def store(out: Path, parameters: dict, fill: Callable[[Path], None]) -> None:
    """Make the set beside its place and move it there when it is complete.

    Args:
        out: The folder to be; absent or empty.
        parameters: What ``is_stored`` compares later; plain values.
        fill: Writes the files into the folder that it is given.
    """
    out = out.resolve()  # beside the true place, also where a link leads to it
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.partial', dir=out.parent))
    try:
        partial.chmod(0o755)  # mkdtemp's folder is for its owner alone
        fill(partial)
        (partial / MANIFEST).write_text(json.dumps(_manifest(parameters), indent=2) + '\n', encoding='utf-8')
        os.replace(partial, out)  # takes the place of an empty folder, fails for another
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _manifest(parameters: dict) -> dict:
    return {**parameters, 'generator': GENERATOR}


def _read_manifest(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
