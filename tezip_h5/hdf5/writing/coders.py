"""Choosing the coder of chunks whose sample is inconclusive, by the result of the last probe."""

from __future__ import annotations

from tezip_h5.attempts import compares
from tezip_h5.codec import Encoded
from tezip_h5.settings import Settings

__all__ = ["CoderChoice"]

_FIRST_GAP = 16  # steps between the first two probes; doubled from then on


class CoderChoice:
    """Remember for each tile which coder was smaller in the last probe.

    A *probe* is a step that runs both coders if a sample is inconclusive. Later steps run only
    the coder that was smaller, so that a long stack of noise is not encoded twice. The probes are
    the steps 0, 16, 48, 112 and so on. They depend on the number of the step only, so the file is
    the same however many steps are encoded at once.

    Parameters
    ----------
    settings : Settings, optional
        Without settings there are no probes.
    """

    def __init__(self, settings: Settings | None):
        self._asks = settings is not None and compares(settings)
        self._kept: list[str] = []

    def probes(self, step: int) -> bool:
        """Whether a step is a probe.

        If its sample is inconclusive, the probe must be judged before the next step begins.
        Otherwise call `forget`.
        """
        gaps, rest = divmod(step, _FIRST_GAP)
        return self._asks and rest == 0 and (gaps + 1).bit_count() == 1

    def preferred(self, step: int, tile: int) -> str | None:
        """The coder to use if a sample is inconclusive; None means both."""
        if self.probes(step) or not self._kept:
            return None
        return self._kept[tile]

    def judge(self, tiles: list[Encoded]) -> None:
        """Remember the results of a probe, in the order of the tiles."""
        self._kept = ["linear" if tile.coder == "linear" else "mixing" for tile in tiles]

    def forget(self) -> None:
        """Forget earlier results, because the sample of a probe was conclusive."""
        self._kept = []
