"""Encode and decode one chunk frame by frame, once scale, coder and predictor are chosen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from tezip_h5 import bitstream, kernels, levels, prediction, residual, windows
from tezip_h5.bitstream import Header, Section
from tezip_h5.bounds import ChunkBound
from tezip_h5.chunk import frames_section
from tezip_h5.chunk.planning import plan_kinds
from tezip_h5.chunk.samples import SampleReader, SampleWriter
from tezip_h5.errors import BoundError
from tezip_h5.holes import Patched
from tezip_h5.kernels import arrays
from tezip_h5.model import store
from tezip_h5.prediction.integer import IntegerModel
from tezip_h5.prediction.scaling import Network, choose_scale
from tezip_h5.settings import Settings
from tezip_h5.windows import Kind

__all__ = [
    "ChunkEncoder",
    "Encoded",
    "FrameRecord",
    "Task",
    "decode_frames",
    "decoded_levels",
]

# The section for each stream of bytes that a coder returns.
_SECTION_OF = {
    "keyframes": Section.KEYFRAMES,
    "residuals": Section.RESIDUALS,
    "tables": Section.TABLES,
}


@dataclass(frozen=True)
class FrameRecord:
    """Statistics of one encoded frame, or of one tile of it.

    `mse` is the mean squared error of its prediction, on the 0..1 scale; it is 0 for keyframes.
    """

    kind: Kind
    keyframe_bytes: int = 0
    residual_bytes: int = 0
    mse: float = 0.0
    max_error: float = 0.0


@dataclass(frozen=True)
class Encoded:
    """A payload, and how it was encoded.

    Attributes
    ----------
    payload : bytes
    coder : str
        The name of the residual coder.
    frames : list of FrameRecord
        One record for each frame.
    model : IntegerModel or None
        The network that predicted the frames.
    without : Encoded or None
        The same chunk, encoded without the model. It is there only if the user did not pin the
        model, and the chunk was encoded both ways.
    """

    payload: bytes
    coder: str
    frames: list[FrameRecord] = field(default_factory=list)
    model: IntegerModel | None = None
    without: Encoded | None = None

    @property
    def max_error(self) -> float:
        """Largest |original - reconstruction| in the chunk."""
        return max(record.max_error for record in self.frames)


@dataclass(frozen=True)
class Task:
    """What all attempts to encode a chunk have in common.

    Parameters
    ----------
    header : Header
        The dtype and the shapes of the chunk.
    samples : Patched
        Its samples, in native byte order.
    bound, settings, kinds, threads, device
        See `codec.encode_chunk`.
    scale : Scale
        The scale that converts the samples to levels.
    frees : tuple of str
        The coders that may choose the levels in holes. They choose what they predict.
    """

    header: Header
    samples: Patched
    bound: ChunkBound
    settings: Settings
    scale: levels.Scale
    kinds: list[Kind] | None = None
    threads: int = 1
    device: str = "cpu"
    frees: tuple[str, ...] = ()


class ChunkEncoder:
    """Encode a chunk with one coder, one quantizer and, if there is one, one network.

    Parameters
    ----------
    task : Task
    coder : str
        The name of the residual coder.
    quantizer : str
    model : IntegerModel, optional
        The network that predicts. Without one, the prediction is the previous frame.
    options
        Options of the coder.
    """

    def __init__(
        self,
        task: Task,
        coder: str,
        quantizer: str = "uniform",
        model: IntegerModel | None = None,
        **options,
    ):
        self._task = task
        self._samples, self._scale, self._settings = task.samples, task.scale, task.settings
        self._frames = frames = task.samples.frames
        g, h, w, channels = frames.shape
        self._shape = (channels, h, w)
        self._tolerances = levels.tolerances(task.scale, task.bound, g, channels)
        self._name = coder
        self._number = residual.NUMBERS[coder]
        self._coder = residual.encoder_for(self._number)(
            self._shape, task.scale, task.settings, quantizer, guided=model is not None, **options
        )
        self._coder.threads, self._coder.device = task.threads, task.device
        self._written = SampleWriter(
            task.header.carrier, task.samples, task.bound, task.scale, self._tolerances
        )
        self._model, self._network = model, None
        if model is not None:
            first, skip = self._levels_of(0), model.architecture.skip
            offset, shift = choose_scale(first, task.scale.top, skip)
            self._network = Network(model.digest, offset, shift)

    def encode(self) -> Encoded:
        """Encode all frames, and return the payload."""
        kinds, chooser = self._windows(self._task.kinds)
        self._prepare(kinds)
        number = prediction.NUMBERS["previous" if self._model is None else "prednet"]
        place = self._coder.place
        device = place if self._model is None else self._task.device
        predictor = prediction.create(
            number, self._shape, self._scale.top, self._network, self._model, device
        )
        predictor.threads = self._task.threads
        closed = self._settings.feedback == "reconstruction"
        records = []
        for t in range(len(self._frames)):
            values_levels = arrays.at(self._levels_of(t), place)
            guess = arrays.at(predictor.predict(), place)
            kind = chooser.next(values_levels, guess) if chooser else kinds[t]
            mse, free = 0.0, self._free(t)
            if kind == Kind.PREDICTED:
                mse = self._mse(values_levels, guess)
                decoded = self._coder.residual(values_levels, guess, self._tolerances[t], free)
            else:
                decoded = self._coder.keyframe(values_levels, self._tolerances[t], free)
            error = self._written.add(values_levels, decoded, free)
            shown = decoded if closed or kind != Kind.PREDICTED else guess
            predictor.observe(arrays.at(shown, device))
            records.append(FrameRecord(kind, mse=mse, max_error=error))
        return self._finish(records, number)

    def _prepare(self, kinds) -> None:
        """Give the coder all original frames, if it learns from all of them before it codes."""
        if not self._coder.learns:
            return
        original = list(np.stack([self._levels_of(t) for t in range(len(self._frames))], 1))
        keyframes = [t == 0 for t in range(len(self._frames))]
        if kinds is not None:
            keyframes = [kind != Kind.PREDICTED for kind in kinds]
        self._coder.prepare(
            [
                residual.Known(
                    original[c],
                    original[c],
                    original[c - 1] if c else None,
                    self._model is not None,
                    keyframes,
                    int(self._tolerances[:, c].min()),
                    self._scale.top,
                )
                for c in range(len(original))
            ]
        )

    def _windows(self, kinds):
        """The kinds of all frames, or else a chooser that decides frame by frame."""
        settings = self._settings
        if self._model is not None and settings.automatic_windows:
            return windows.fixed(len(self._frames), None), None
        if kinds is not None:
            return kinds, None
        if settings.mse_threshold is None or settings.predictor == "none":
            return plan_kinds(self._frames, self._task.bound, settings), None
        return None, windows.MseWindows(settings.mse_threshold, self._full_scale(), settings.warmup)

    def _full_scale(self) -> float:
        """The number of levels that counts as 1.0 in mean squared errors."""
        full = levels.full_scale(self._task.header.dtype)
        if full is not None and isinstance(self._scale, levels.Integers):
            return full
        return float(max(self._scale.top, 1))

    def _mse(self, frame_levels, guess) -> float:
        """The mean squared error of a prediction, on the 0..1 scale."""
        kernel = kernels.of(frame_levels)
        total = kernel.squared_error(frame_levels.reshape(-1), guess.reshape(-1))
        return total / frame_levels.size / self._full_scale() ** 2

    def _levels_of(self, t: int) -> np.ndarray:
        """The levels of frame `t`, int32 (C, h, w)."""
        frame = np.ascontiguousarray(np.moveaxis(self._frames[t], 2, 0))
        found = self._scale.of_frame(t).to_levels(frame)
        top = self._scale.top
        # Kernels do not check levels. A level above the top would make them write outside their
        # arrays.
        if top < 1 << 31 and (found.min() < 0 or found.max() > top):
            raise BoundError(
                f"levels from {found.min()} to {found.max()}, their scale says 0 to {top}; nothing "
                "was written, please report this"
            )
        return found

    def _free(self, t) -> np.ndarray | None:
        """Which levels of frame `t` the coder may choose, bool (C, h, w); None if it may not."""
        holes = self._samples.holes if self._name in self._task.frees else None
        return None if holes is None else np.moveaxis(holes[t], 2, 0)

    def _finish(self, records, number) -> Encoded:
        """Put the payload together; `number` is that of the predictor."""
        coded, sizes = self._coder.finish()
        sections = {
            Section.FRAMES: frames_section.pack([r.kind for r in records], self._tolerances),
            Section.LEVELS: self._scale.pack(),
            **self._written.pack(),
        }
        sections.update((_SECTION_OF[name], data) for name, data in coded.items())
        predicted = any(r.kind == Kind.PREDICTED for r in records)
        if predicted and self._network is not None:
            sections[Section.MODEL] = self._network.pack()
        open_loop = self._settings.feedback == "prediction" and predicted
        header = replace(
            self._task.header,
            coder=self._number,
            predictor=number if predicted else prediction.NUMBERS["none"],
            scale=self._scale.kind,
            flags=bitstream.FLAG_FEEDBACK_PREDICTION if open_loop else 0,
            checksum=self._written.checksum,
        )
        records = [
            replace(r, residual_bytes=size)
            if r.kind == Kind.PREDICTED
            else replace(r, keyframe_bytes=size)
            for r, size in zip(records, sizes, strict=True)
        ]
        model = self._model if predicted else None
        return Encoded(bitstream.pack(header, sections), self._name, records, model)


def decode_frames(parsed: bitstream.Payload, out: np.ndarray, threads: int, device: str) -> None:
    """Decode the frames of a payload.

    Parameters
    ----------
    parsed : Payload
    out : (g, H, W, C) array of the header's carrier dtype
        Receives the samples.
    threads : int
    device : str
        "cpu" or "cuda".
    """
    _, h, w = parsed.header.valid
    scale, frames = decoded_levels(parsed, threads, device)
    samples = SampleReader(parsed, scale)
    for t, (decoded, _) in enumerate(frames):
        target = out[t, :h, :w]
        target[...] = samples.next(decoded).reshape(target.shape)
    samples.finish()


def decoded_levels(
    parsed: bitstream.Payload, threads: int = 1, device: str = "cpu", predictions: bool = False
):
    """Decode the levels of a payload frame by frame.

    Parameters
    ----------
    parsed : Payload
    threads : int
    device : str
        "cpu" or "cuda".
    predictions : bool
        Whether to return predictions, too.

    Returns
    -------
    Scale
        The scale of the levels.
    iterator of (levels, prediction)
        Both are int32 (C, h, w), in the memory of the device that the coder runs on. The levels
        are valid until the next frame is taken. The prediction is None for keyframes, and unless
        `predictions` is true.

    Raises
    ------
    FormatError
        If the payload is damaged. The iterator may raise it, too.
    ModelError
        If the payload needs a model that is not found.
    """
    header = parsed.header
    g, h, w = header.valid
    decoder_class = residual.decoder_for(header.coder)
    shape = (header.channels, h, w)
    dtype = header.carrier.newbyteorder("=")
    scale = levels.unpack(header.scale, dtype, parsed.section(Section.LEVELS), header.samples)
    network = model = None
    if header.predictor == prediction.NUMBERS["prednet"]:
        network = Network.unpack(parsed.section(Section.MODEL))
        model = store.find(network.digest)
    of_frames = parsed.section(Section.FRAMES)
    kinds, tolerances = frames_section.unpack(of_frames, g, header.channels, scale.top)
    coded = {name: parsed.sections[n] for name, n in _SECTION_OF.items() if n in parsed.sections}
    decoder = decoder_class(coded, shape, scale)
    decoder.threads, decoder.device = threads, device
    place = decoder.place
    if model is None:
        device = place
    predictor = prediction.create(header.predictor, shape, scale.top, network, model, device)
    predictor.threads = threads

    def frames():
        closed = not header.flags & bitstream.FLAG_FEEDBACK_PREDICTION
        for kind, of_channels in zip(kinds, tolerances, strict=True):
            guess = arrays.at(predictor.predict(), place)
            if kind == Kind.PREDICTED:
                decoded = decoder.residual(guess, of_channels)
            else:
                decoded = decoder.keyframe(of_channels)
            known = guess.copy() if predictions and kind == Kind.PREDICTED else None
            shown = decoded if closed or kind != Kind.PREDICTED else guess
            predictor.observe(arrays.at(shown, device))
            yield decoded, known
        decoder.finish()

    return scale, frames()
