"""Which coder encodes chunks that a sample leaves in doubt: what the last probe came to."""

from __future__ import annotations

from tezip_h5.attempts import compares
from tezip_h5.codec import Encoded
from tezip_h5.settings import Settings

__all__ = ["CoderChoice"]

_FIRST_GAP = 16  # steps between the first two probes; doubled from then on


class CoderChoice:
    """Remember, tile by tile, which coder the last probe kept.

    A probe runs both coders where a sample does not say which of them to take; the steps after it
    run the one that it kept there, so that a long stack of noise is not encoded twice all along.
    Step 0 is a probe, and then 16, 48, 112 and so on: what is encoded how depends on the step
    alone, not on how many are under way.

    Parameters
    ----------
    settings : Settings, optional
        Without them there are no probes.
    """

    def __init__(self, settings: Settings | None):
        self._asks = settings is not None and compares(settings)
        self._kept: list[str] = []

    def probes(self, step: int) -> bool:
        """Whether a step is a probe. If a sample of it is in doubt it must be judged before the
        next one begins, else `forget` what was known."""
        gaps, rest = divmod(step, _FIRST_GAP)
        return self._asks and rest == 0 and (gaps + 1).bit_count() == 1

    def preferred(self, step: int, tile: int) -> str | None:
        """What runs alone where a sample is in doubt; None for both coders."""
        if self.probes(step) or not self._kept:
            return None
        return self._kept[tile]

    def judge(self, tiles: list[Encoded]) -> None:
        """Take what a probe came to, in the order of the tiles."""
        self._kept = ["linear" if tile.coder == "linear" else "mixing" for tile in tiles]

    def forget(self) -> None:
        """The last probe was not in doubt: it says nothing of steps that are."""
        self._kept = []
