"""The levels: how hard the encoder tries, decision by decision, with the values for each level.

Everything that depends on the level is a field of `Effort`, and every module reads its fields
from `settings.effort`. Decoders never do: a payload describes itself.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EFFORTS", "Effort"]


@dataclass(frozen=True)
class Effort:
    """The choices of the encoder at one level.

    The *worth* of a slow way is the share of bytes that it must save to be used.

    Attributes
    ----------
    coder : "linear" | "mixing"
        The residual coder that is tried first. Mixing takes ten times as long to write and to
        read. It saves most where frames have structure, and nothing on noise.
    mixing_model : int
        Number of the mixing coder's model, in `residual.streams.MODELS`. 0 mixes five contexts and
        has 42 KB of adaptive state, so that thousands of streams fit on a GPU; 1 mixes seventeen,
        and remembers means of the frames and of what was missed in them.
    mixing_worth : float
        Share of a chunk's bytes that mixing must save compared with the linear coder. A sample
        decides that where it can. With 0 no sample is taken: both coders run, and the smaller
        payload is kept (unless `coder` is "linear" already).
    network_worth : float
        Share of a chunk's bytes that a network must save to be used. A network about doubles the
        time of reading. With 1 no network is tried.
    tries_shipped_network : bool
        Whether the network that ships is tried, and not only one that the user names. It seldom
        saves 1%, and the sample that would tell takes up to a quarter of the time of writing.
    centring_worth : float
        Share of a sample's bytes that `levels.centred` must save to be used, for floats with a
        bound. Such chunks hardly become smaller when they are compressed again. So the levels after
        which one may do that use it only where it saves more than that would.
    chunk_bytes : int
        A chunk has more than 16 frames, up to 64, while it stays below this size. Reading one
        frame decodes its whole chunk; archives are mostly read whole.
    searches_stages : bool
        Whether TEZip's stages are tried with each quantizer, with and without PEE, and with and
        without DBSE where a sample is inconclusive; the smallest payload is kept. Otherwise
        quantization is uniform, there is no PEE, and the sample decides on DBSE.
    zstd : tuple of str
        Searches of `residual.entropy.SEARCHES` that the stages' entropy coding tries; the smallest
        result is kept. The quick one is always among them, because noise has no matches to find.
    blosc : tuple of int
        zstd levels that the fallback codec tries, see `fallback.encode`; 5 is numcodecs' default.
    fallback_doubt : float
        The fallback codec runs on a chunk if its size in a sample is below the payload's size
        times this factor. The factor allows for a chunk that it compresses better than the sample.
    seeks_repeats : bool
        Whether the fallback codec also runs where a frame is repeated later in the chunk. Its
        sample cannot show that, so checksums of all frames are compared.
    sampled_bands : int
        Number of bands of eight rows of every frame in the samples that judge the fallback codec
        and the stages' keyframes.
    """

    coder: str
    mixing_model: int
    mixing_worth: float
    network_worth: float
    tries_shipped_network: bool
    centring_worth: float
    chunk_bytes: int
    searches_stages: bool
    zstd: tuple[str, ...]
    blosc: tuple[int, ...]
    fallback_doubt: float
    seeks_repeats: bool
    sampled_bands: int

    @property
    def tries_networks(self) -> bool:
        """Whether a network may be used without being pinned."""
        return self.network_worth < 1


EFFORTS = {
    "fast": Effort(
        coder="linear",
        mixing_model=0,  # used only if the mixing coder is pinned
        mixing_worth=0.0,
        network_worth=1.0,
        tries_shipped_network=False,
        centring_worth=0.04,
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
        tries_shipped_network=False,
        centring_worth=0.04,
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
        tries_shipped_network=True,
        centring_worth=0.0,
        chunk_bytes=16 << 20,
        searches_stages=True,
        zstd=("quick", "long matches", "thorough"),
        blosc=(5, 9),
        fallback_doubt=1.12,
        seeks_repeats=True,
        sampled_bands=8,
    ),
}
"""The levels, from the fastest to the slowest. The options of HDF5's filter store a level as its
position here, so the order must not change."""
