"""The line about version, commit and date that each script here writes into its results."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import tezip_h5

ROOT = Path(tezip_h5.__file__).resolve().parents[1]


def made_by(root: Path = ROOT) -> str:
    """The version and the commit of the code in `root`, and today's date.

    "+ changes" is added if files other than results differ from the commit.
    """
    return f"tezip_h5 {tezip_h5.__version__} ({_commit(root)}), {time.strftime('%Y-%m-%d')}"


def of_rows(made: Iterable[str | None]) -> str:
    """The versions of the code that rows of results were measured with."""
    known = dict.fromkeys(text or "a commit that was not written down" for text in made)
    return f"Rows were measured with {'; '.join(known)}."


def _commit(root: Path) -> str:
    commit, top = _git(root, "rev-parse", "--short", "HEAD"), _git(root, "rev-parse", "--show-cdup")
    if not commit or top:  # not a repository, or a folder in the repository of something else
        return "no git checkout: the commit is unknown"
    changed = ("--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"commit {commit}{' + changes' * bool(_git(root, 'status', '--porcelain', *changed))}"


def _git(root: Path, *words: str) -> str | None:
    """The output of a git command, or None if it fails."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
