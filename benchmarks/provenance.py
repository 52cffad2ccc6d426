"""What was measured, and when: the line that every script here puts into its results."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import tezip_h5

ROOT = Path(tezip_h5.__file__).resolve().parents[1]


def made_by(root: Path = ROOT) -> str:
    """Version and commit of the code in `root`, "+ changes" where files differ from it (results
    do not count), and today's date."""
    return f"tezip_h5 {tezip_h5.__version__} ({_commit(root)}), {time.strftime('%Y-%m-%d')}"


def of_rows(made: Iterable[str | None]) -> str:
    """Which code rows of results say they were measured with."""
    known = dict.fromkeys(text or "a commit that was not written down" for text in made)
    return f"Rows were measured with {'; '.join(known)}."


def _commit(root: Path) -> str:
    commit, top = _git(root, "rev-parse", "--short", "HEAD"), _git(root, "rev-parse", "--show-cdup")
    if not commit or top:  # a repository around it is another's
        return "no git checkout: the commit is unknown"
    changed = ("--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"commit {commit}{' + changes' * bool(_git(root, 'status', '--porcelain', *changed))}"


def _git(root: Path, *words: str) -> str | None:
    """What git answers, or None where it has none."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
