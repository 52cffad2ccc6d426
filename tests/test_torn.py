"""A kill between any two writes of `Writer`, one after the other: what HDF5 wrote is recorded, and
replayed up to every point; each time the file must open and hold every frame that was safe."""

import io

import h5py
import numpy as np
import pytest

from tezip_h5 import Writer, repair
from tezip_h5.hdf5.writing import beginning, encoder, growing, live
from tezip_h5.hdf5.writing.ending import let_go


class Recorder(io.BytesIO):
    """A file that notes what is written into it."""

    def __init__(self):
        super().__init__()
        self.log = []

    def write(self, data):
        self.log.append((self.tell(), bytes(data)))
        return super().write(data)

    def truncate(self, size=None):
        self.log.append((size, None))
        return super().truncate(size)


@pytest.fixture
def recorder(monkeypatch):
    recorder, real = Recorder(), h5py.File
    monkeypatch.setattr(
        h5py,
        "File",
        lambda path, mode, **options: real(recorder, mode.replace("x", "w"), **options),
    )
    file = live.new_file(None, swmr=False)
    monkeypatch.setattr(h5py, "File", real)
    monkeypatch.setattr(live, "make_to_add", lambda *_: file)
    monkeypatch.setattr(beginning.Beginning, "identity", None)  # it lies on no disk

    class Space:
        """The file is made longer by other means than HDF5's, see `space`."""

        def __init__(self, file):
            pass

        def reserve(self, size):
            pass

    monkeypatch.setattr(growing, "Space", Space)
    return recorder


def check(stored, frames, first, safe):
    assert len(stored) >= safe
    np.testing.assert_array_equal(stored[first:safe], frames[first:safe])
    infos = [stored.id.get_chunk_info_by_coord((n, 0, 0)) for n in range(first, safe, 2)]
    assert all(info.size for info in infos)


@pytest.mark.parametrize("every", [0, 7])
def test_every_moment(tmp_path, monkeypatch, recorder, every):
    """`every`: a flush after so many frames, which writes unfinished chunks; 0 is none."""
    frames = np.random.default_rng(0).poisson(40, (150, 8, 8)).astype("u2")
    log = recorder.log
    write = encoder.StackEncoder._write

    def noted(self, step):
        write(self, step)
        log.append(("safe", step.start + step.count))

    monkeypatch.setattr(encoder.StackEncoder, "_write", noted)
    path = tmp_path / "x.h5"
    writer = Writer(path, "scan", (8, 8), "u2", level="fast", chunk_frames=2, threads=1)
    for number, frame in enumerate(frames, 1):
        writer.append(frame)
        if every and number % every == 0:
            writer.flush()
            log.append(("safe", number))
    writer._line.wait()
    moments = list(log)
    writer._line.close()
    writer._encoder.close()
    let_go(writer)

    replayed, safe, seen, repaired = bytearray(), 0, 0, 0
    for at, data in moments:
        if at == "safe":
            safe = max(safe, data)
            continue
        if data is None:
            replayed[at:] = bytes(max(0, at - len(replayed)))
        else:
            replayed[len(replayed) :] = bytes(max(0, at - len(replayed)))
            replayed[at : at + len(data)] = data
        if not safe:
            continue
        seen += 1
        first = 0 if seen % 50 == 0 else max(0, safe - 10) // 2 * 2
        try:
            with h5py.File(io.BytesIO(bytes(replayed)), "r") as file:
                check(file["scan/data"], frames, first, safe)
        except OSError as error:
            # The new place of an unfinished chunk that was flushed, and the file's new length not
            # noted yet: HDF5 opens the file, and `repair` gives it back.
            if not every or "addr overflow" not in str(error):
                raise
            path.write_bytes(replayed)
            repair(path)
            with h5py.File(path) as file:
                check(file["scan/data"], frames, 0, safe)
            repaired += 1
    assert safe == len(frames)
    assert seen > 500
    assert repaired < 0.03 * seen
