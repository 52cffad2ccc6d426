"""A redo log for HDF5 files: changes to a file take effect completely or not at all.

HDF5 writes its structures in no particular order, so a writer that is killed can leave a file
with broken links. Here, bytes that HDF5 writes behind the old end of the file go there at once,
because nothing in the file points there yet. Bytes that it writes before the old end stay in
memory, page by page. `commit` writes those pages into a journal beside the file first, and then
into the file. If a writer was killed in between, `recover` finds the journal and finishes the
change.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import zipfile
from pathlib import Path
from uuid import uuid4

import numpy as np

from tezip_h5.errors import FormatError, InputError
from tezip_h5.hdf5.files.finished import beside, sync_folder
from tezip_h5.hdf5.files.space import lengthen

try:
    import fcntl
except ImportError:  # not on Windows, where HDF5 locks no files either
    fcntl = None

__all__ = ["Locked", "Pages", "journal_of", "recover"]

_PAGE = 4096
_SIGNATURE = 8  # length of HDF5's signature at the start, which it reads only to open a file
_log = logging.getLogger("tezip_h5")


def journal_of(path) -> Path:
    """The path of a file's journal."""
    return beside(Path(os.path.realpath(path)), ".tezip-journal")


class Pages(io.RawIOBase):
    """A file object for h5py's fileobj driver, opened for changes and locked as HDF5 does.

    Parameters
    ----------
    path : str or path
    end_of : callable, optional
        A function that is called once the file is locked. It returns the place behind which the
        file may be overwritten at once, or None; default: the end of the file.

    Raises
    ------
    OSError
        When another process, or h5py in this one, has it open.
    """

    def __init__(self, path, end_of=None):
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115
        try:
            _lock(self._file)
            self._path = Path(path)
            size = os.fstat(self._file.fileno()).st_size
            end = end_of and end_of(path)
            self._base = self._end = size if end is None else min(end, size)
        except BaseException:
            _unlock(self._file)
            raise
        self._changed: dict[int, bytearray] = {}  # new contents of pages, by their numbers
        self._position = 0
        self._process = os.getpid()
        self._sealed = False
        self.error: BaseException | None = None
        """The first error. HDF5 cannot report it, so only errors of reading are raised to it."""

    def seal(self) -> None:
        """Note that HDF5 has opened the file, which it may do only once.

        HDF5 opens the target of an external link with the same driver. It would get this file
        again, whatever the link names, and the two would overwrite each other.
        """
        self._sealed = True

    def reserve(self, size: int) -> None:
        """Reserve space for `size` bytes at the end; OSError if the disk has none."""
        lengthen(self._file.fileno(), self._base, size)

    # --- the file object's methods, which h5py calls ---

    def readable(self) -> bool:
        """Whether the file can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether the file can be positioned: always."""
        return True

    def writable(self) -> bool:
        """Whether the file can be written: always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        self._position = offset + {0: 0, 1: self._position, 2: self._end}[whence]
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer) -> int:
        """Read the file as it will be after the changes."""
        with self._told():
            return self._read_into(memoryview(buffer).cast("B"))

    def _read_into(self, view: memoryview) -> int:
        start = self._position
        if self._sealed and start == 0 and len(view) == _SIGNATURE:
            raise OSError(errno.ELOOP, "a link leads from a file that is being changed to others")
        self._file.seek(start)
        found = 0
        while found < len(view) and (count := self._file.readinto(view[found:])):
            found += count
        for number in self._before(start, start + found):
            if number in self._changed:
                page, place = self._changed[number], number * _PAGE
                first, stop = max(place, start), min(place + len(page), start + found)
                view[first - start : stop - start] = page[first - place : stop - place]
        self._position += found
        return found

    def write(self, data) -> int:
        """Write: bytes behind the old end go into the file, those before it into memory."""
        view = memoryview(data).cast("B")
        with self._kept():
            self._write_from(view)
        return len(view)

    def _write_from(self, view: memoryview) -> None:
        start = self._position
        stop = start + len(view)
        for number in self._before(start, stop):
            place = number * _PAGE
            page = self._page(number)
            first, last = max(place, start), min(place + len(page), stop)
            page[first - place : last - place] = view[first - start : last - start]
        behind = max(start, self._base)
        while behind < stop:
            self._file.seek(behind)
            behind += self._file.write(view[behind - start :])
        self._position = stop
        self._end = max(self._end, stop)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length; it becomes shorter than before only in `commit`."""
        self._end = self._position if size is None else size
        with self._kept():
            self._file.truncate(max(self._end, self._base))
        return self._end

    @contextlib.contextmanager
    def _told(self):
        try:
            yield
        except BaseException as error:
            self.error = self.error or error
            raise

    @contextlib.contextmanager
    def _kept(self):
        """Keep an error for `commit`, because HDF5 crashes when it closes a file after an error."""
        with contextlib.suppress(BaseException), self._told():
            yield

    def _before(self, start: int, stop: int) -> range:
        """Numbers of the pages before the old end that overlap a part of the file."""
        stop = min(stop, self._base)
        return range(start // _PAGE, -(-stop // _PAGE)) if start < stop else range(0)

    def _page(self, number: int) -> bytearray:
        if number not in self._changed:
            self._changed[number] = bytearray(self._stored(number))
        return self._changed[number]

    def _stored(self, number: int) -> bytes:
        place = number * _PAGE
        return _read(self._file, place, min(_PAGE, self._base - place))

    # --- the end ---

    def commit(self) -> None:
        """Make all changes in the file, durably.

        Raises
        ------
        OSError
            When the disk has no room for the journal; nothing has changed then. Also an error of
            an earlier write.
        """
        if self.error is not None:
            raise self.error
        os.fsync(self._file.fileno())
        changed = {
            number * _PAGE: (self._stored(number), bytes(page))
            for number, page in sorted(self._changed.items())
        }
        changed = {place: pages for place, pages in changed.items() if pages[0] != pages[1]}
        # A page behind the old end is in the journal, too. It shows whether the added bytes are in
        # the file, which may have been replaced by an older copy.
        last = max(self._base, self._end - _PAGE)
        if last < self._end:
            changed[last] = (_read(self._file, last, self._end - last),) * 2
        journal = journal_of(self._path)
        try:
            _write_journal(journal, changed)
        except BaseException:
            journal.unlink(missing_ok=True)
            raise
        self._base = self._end  # from here on the change will be finished
        try:
            _carry_out(self._file, journal, changed)
        except KeyboardInterrupt:
            _carry_out(self._file, journal, changed)
            raise
        finally:
            self._file.truncate(self._end)

    def close(self) -> None:
        """Close the file; without `commit` the file is as it was before."""
        if self._process != os.getpid():  # a fork: the lock belongs to its parent
            self._file.close()
        elif not self._file.closed:
            try:
                self._file.truncate(self._base)
            finally:
                _unlock(self._file)
        super().close()


def recover(path) -> None:
    """Finish the change of `path` that a killed writer had begun, if there is one.

    A journal that was made for another version of the file is not applied.

    Raises
    ------
    InputError
        When another process is changing the file, or it cannot be written here.
    FormatError
        When the journal is damaged.
    """
    journal = journal_of(path)
    if not journal.exists():
        return
    try:
        with contextlib.closing(Locked(path)) as locked:
            file = locked.file
            if not journal.exists():  # its writer has just finished
                return
            changed = _read_journal(journal)
            states = {place: _read(file, place, len(new)) for place, (_, new) in changed.items()}
            if any(state not in changed[place] for place, state in states.items()):
                _log.warning(
                    "%s was made for another version of %s and was not applied; delete it if the "
                    "file was replaced or restored since",
                    journal,
                    path,
                )
                return
            _carry_out(file, journal, changed)
    except BlockingIOError:
        raise InputError(
            f"{path} is being changed by another process; try again when it is done"
        ) from None
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
            raise
        raise InputError(
            f"the writer of {path} died while it changed the file, and the change cannot be "
            "finished without write permission; run `tezip-h5 repair` with it"
        ) from None
    _log.warning("completed an unfinished change of %s, whose writer died", path)


class Locked:
    """A file that is open for changes and locked; raises as `Pages` does."""

    def __init__(self, path):
        self.file = open(path, "r+b", buffering=0)  # noqa: SIM115
        try:
            _lock(self.file)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlock and close the file."""
        _unlock(self.file)


def _lock(file) -> None:
    """Lock a file as HDF5 does, unless HDF5's environment variable forbids it."""
    if fcntl is None or os.environ.get("HDF5_USE_FILE_LOCKING") in ("FALSE", "0"):
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(
            errno.EAGAIN, "the file is open in another process, or in this one", file.name
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise  # as HDF5 does: a file system without locks is used without them


def _unlock(file) -> None:
    """Unlock and close a file; closing alone is not enough, a forked child may share the lock."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def _read(file, place: int, size: int) -> bytes:
    file.seek(place)
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _carry_out(file, journal: Path, changed: dict[int, tuple[bytes, bytes]]) -> None:
    """Write the new pages of a journal, and remove it when they are on the disk."""
    for place, (_, page) in changed.items():
        file.seek(place)
        while page:
            page = page[file.write(page) :]
    os.fsync(file.fileno())
    journal.unlink(missing_ok=True)  # applying it again after an interruption is harmless


# --- journals: encode beside decode ---


def _write_journal(journal: Path, changed: dict[int, tuple[bytes, bytes]]) -> None:
    """Write the journal: for each place the old and the new bytes. It appears complete."""
    unfinished = journal.with_name(f".{uuid4().hex}.tmp")
    old, new = (b"".join(pages[i] for pages in changed.values()) for i in (0, 1))
    try:
        with open(unfinished, "wb") as file:
            np.savez(
                file,
                places=np.array(list(changed), "<i8"),
                sizes=np.array([len(new) for _, new in changed.values()], "<i8"),
                old=np.frombuffer(old, np.uint8),
                new=np.frombuffer(new, np.uint8),
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, journal)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(journal.parent)  # or the pages may be on the disk before the journal's name


def _read_journal(journal: Path) -> dict[int, tuple[bytes, bytes]]:
    """The inverse of `_write_journal`."""
    try:
        with np.load(journal, allow_pickle=False) as arrays:
            places, sizes, old, new = (arrays[name] for name in ("places", "sizes", "old", "new"))
        stops = np.cumsum(sizes)
        if not (sizes.min(initial=1) > 0 and stops[-1:].sum() == old.size == new.size):
            raise ValueError(f"{old.size} and {new.size} bytes for sizes of {sizes.sum()}")
        cuts = zip(places.tolist(), (stops - sizes).tolist(), stops.tolist(), strict=True)
        return {place: (old[a:b].tobytes(), new[a:b].tobytes()) for place, a, b in cuts}
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"{journal} is damaged ({error}), so the file beside it may be incomplete; delete the "
            "journal to open the file as it is"
        ) from None
