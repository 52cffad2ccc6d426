"""What a level does: how hard the encoder tries, decision by decision, and the table of all levels.

Whatever hangs on the level is a field here; every room asks `settings.effort` for its own. No
decoder does: a payload says what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EFFORTS", "Effort"]


@dataclass(frozen=True)
class Effort:
    """What the encoder does at one level.

    Attributes
    ----------
    coder : "linear" | "mixing"
        The residual coder that is tried first. Mixing takes ten times as long to write and to
        read, and saves most where frames have structure; on noise nothing.
    mixing_model : int
        Number of the mixing coder's model, in `residual.streams.MODELS`. 0 mixes five contexts and
        has 42 KB of adaptive state, so that thousands of streams fit on a GPU; 1 mixes seventeen,
        and remembers means of the frames and of what was missed in them.
    mixing_worth : float
        Share of a chunk's bytes that mixing must save beside the linear coder, which a sample
        judges where it can. 0: no sample is taken, both run, and what is smaller stays (where
        `coder` is not the linear one already).
    network_worth : float
        Share of a chunk's bytes that a network must save to be used: it makes reading slower,
        about as much again as everything else together. 1: none is tried.
    centres_cells : bool
        Whether `levels.centred` is tried for floats with a bound, by a sample. Smooth fields are
        smaller by it, but cannot be recompressed well then: only for the slowest level, which is
        what one recompresses at.
    chunk_bytes : int
        More than 16 frames make a chunk, up to 64, if it stays below this: reading one frame
        decodes its whole chunk, and an archive is read whole more often than frame by frame.
    searches_stages : bool
        Whether TEZip's stages are tried with each quantizer, with and without PEE, and with and
        without DBSE where a sample does not tell, and the smallest stays. Else quantization is
        uniform, there is no PEE, and the sample decides on DBSE.
    zstd : tuple of str
        Searches of the stages' entropy coding, of `residual.entropy.SEARCHES`; the smallest stays.
        Noise has no matches worth finding, so the quick one always runs, too.
    blosc : tuple of int
        Levels of zstd of the fallback, see `fallback.encode`; 5 is numcodecs' default.
    fallback_doubt : float
        The fallback runs where a sample of it is smaller than the payload times this. In a chunk it
        may do better than in the sample by no more than this.
    seeks_repeats : bool
        Whether the fallback also runs where frames come again later, which its sample does not
        see. Every frame's checksum is made for that.
    sampled_bands : int
        Bands of eight rows of every frame, by which the fallback and the stages' keyframes are
        judged.
    """

    coder: str
    mixing_model: int
    mixing_worth: float
    network_worth: float
    centres_cells: bool
    chunk_bytes: int
    searches_stages: bool
    zstd: tuple[str, ...]
    blosc: tuple[int, ...]
    fallback_doubt: float
    seeks_repeats: bool
    sampled_bands: int

    @property
    def tries_networks(self) -> bool:
        """Whether a network may be used that is not pinned."""
        return self.network_worth < 1


EFFORTS = {
    "fast": Effort(
        coder="linear",
        mixing_model=0,  # where mixing is pinned
        mixing_worth=0.0,
        network_worth=1.0,
        centres_cells=False,
        chunk_bytes=2 << 20,
        searches_stages=False,
        zstd=("quick",),
        blosc=(1,),
        fallback_doubt=1.02,
        seeks_repeats=False,
        sampled_bands=4,
    ),
    "balanced": Effort(
        coder="mixing",
        mixing_model=0,
        mixing_worth=0.02,
        network_worth=0.01,
        centres_cells=False,
        chunk_bytes=4 << 20,
        searches_stages=True,
        zstd=("quick", "short matches"),
        blosc=(5,),
        fallback_doubt=1.12,
        seeks_repeats=True,
        sampled_bands=8,
    ),
    "best": Effort(
        coder="mixing",
        mixing_model=1,
        mixing_worth=0.0,
        network_worth=0.002,
        centres_cells=True,
        chunk_bytes=16 << 20,
        searches_stages=True,
        zstd=("quick", "long matches", "thorough"),
        blosc=(5, 9),
        fallback_doubt=1.12,
        seeks_repeats=True,
        sampled_bands=8,
    ),
}
"""The levels, from the fastest to the slowest. Their places here are their numbers in the options
of HDF5's filter: they stay."""
