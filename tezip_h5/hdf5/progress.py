"""Progress bars: on a terminal, for what takes longer than two seconds."""

from __future__ import annotations

from tqdm import tqdm

__all__ = ["progress"]


def progress(iterable=None, *, total=None, unit="chunk", show: bool | None = None) -> tqdm:
    """A bar over `iterable`; `show` True or False decides, None leaves it to the terminal."""
    disable = None if show is None else not show
    return tqdm(iterable, total=total, unit=unit, delay=2, disable=disable, leave=False)
