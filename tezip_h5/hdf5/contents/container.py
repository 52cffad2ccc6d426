"""The container: where a stack, its tables and its models lie in an HDF5 file.

    /scan              group, NX_class=NXdata, signal=data; a summary of the stack as attributes
      data             (T, H, W[, C]), filter tezip; attribute `tezip` refers to this group
      frames           (T,) compound, a row for every frame
      filenames        (T,) UTF-8, when frames came from files
      keyframes        virtual dataset over data
      preview          8-bit thumbnails of keyframes, gzip; attribute `frames` says which

A dataset that was compressed where it stood has these tables in /tezip/stacks/<its path>.
"""

from __future__ import annotations

import contextlib
from uuid import uuid4

import h5py
import numpy as np

from tezip_h5.errors import FormatError, InputError, TezipError, disk_error
from tezip_h5.hdf5.contents import nexus
from tezip_h5.hdf5.contents.layout import Layout
from tezip_h5.hdf5.contents.tables import FRAME_DTYPE, reading
from tezip_h5.hdf5.pipeline.options import FILTER_ID, ChunkOptions
from tezip_h5.version import __version__

__all__ = [
    "FRAME_DTYPE",
    "check_place",
    "check_table",
    "create_data",
    "create_filenames",
    "create_tables",
    "drop_staging",
    "find_stacks",
    "finish_group",
    "is_tezip",
    "keep_mask",
    "keep_off_the_end",
    "name_taken",
    "note",
    "read_filenames",
    "replacing",
    "staging_group",
    "tables_of",
    "visit_all",
    "write_filenames",
]

STACKS = "/tezip/stacks"
INCOMING = "/tezip/incoming"
REPLACED = "/tezip/replaced"
READ_ME = (
    "Compressed image stack. Read `data` with plain h5py after `import tezip_h5` "
    "(pip install tezip_h5); `preview` needs no plugin."
)
MASK = "pixel_mask"
NAME_BYTES = 255

_GUARD_BYTES = 4096  # more than a block in which HDF5 collects small pieces


def create_data(
    group: h5py.Group, layout: Layout, options: ChunkOptions, most: int | None = None
) -> h5py.Dataset:
    """Create the empty dataset ``data`` in `group`, with the filter in its pipeline.

    It can grow to `most` frames, by default without limit.
    """
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_chunk(layout.chunk)
    dcpl.set_filter(FILTER_ID, h5py.h5z.FLAG_OPTIONAL, options.pack())
    dcpl.set_fill_time(h5py.h5d.FILL_TIME_IFSET)
    space = h5py.h5s.create_simple(
        (0, *layout.frame_shape), (most or h5py.h5s.UNLIMITED, *layout.frame_shape)
    )
    type_id = h5py.h5t.py_create(options.dtype, logical=True)
    dataset = h5py.h5d.create(group.id, b"data", type_id, space, dcpl)
    return h5py.Dataset(dataset)


def create_tables(group: h5py.Group, filenames: bool) -> None:
    """Create the growing tables of a stack."""
    # Not compressed: its chunks keep their place in the file when rows are added.
    group.create_dataset("frames", (0,), FRAME_DTYPE, maxshape=(None,), chunks=(64,))
    if filenames:
        create_filenames(group)


def create_filenames(group: h5py.Group) -> None:
    """Create the growing table of file names."""
    name = h5py.string_dtype("utf-8", NAME_BYTES)
    group.create_dataset(
        "filenames", (0,), name, maxshape=(None,), chunks=(256,), compression="gzip"
    )


def keep_mask(group: h5py.Group, mask: np.ndarray | None) -> np.ndarray | None:
    """Store a stack's mask under NeXus's name; without a mask, return the stored one."""
    if mask is None:
        return group[MASK][()] != 0 if MASK in group else None
    if MASK in group:
        if np.array_equal(group[MASK][()] != 0, mask):
            return mask
        del group[MASK]
    group.create_dataset(MASK, data=mask.astype(np.uint8), compression="gzip")
    return mask


def write_filenames(group: h5py.Group, names: list[str]) -> None:
    """Update the table of file names to `names`, one per frame; make the table if needed."""
    if not names:
        return
    if "filenames" not in group:
        create_filenames(group)
    table = group["filenames"]
    done = table.shape[0]
    table.resize(len(names), axis=0)
    encoded = [name.encode("utf-8", "surrogateescape") for name in names[done:]]
    table[done:] = np.array(encoded, table.dtype)


def read_filenames(group: h5py.Group) -> list[str] | None:
    """File names of a stack's frames, or None."""
    if "filenames" not in group:
        return None
    with reading(group, "the table 'filenames'"):
        table = group["filenames"]
    # gzip cannot compress better than by a factor of about 1000, so a larger table is damaged.
    if (
        not isinstance(table, h5py.Dataset)
        or h5py.check_string_dtype(table.dtype) is None
        or table.ndim != 1
        or table.nbytes > 2000 * table.id.get_storage_size()
    ):
        raise FormatError(f"{group.name}/filenames of {group.file.filename} is damaged")
    return [name.decode("utf-8", "surrogateescape") for name in group["filenames"][()]]


def tables_of(data: h5py.Dataset) -> h5py.Group | None:
    """The group with a dataset's tables, or None."""
    reference = data.attrs.get("tezip")
    if not isinstance(reference, h5py.Reference) or not reference:
        return None
    try:
        group = data.file[reference]
    except (ValueError, KeyError):
        return None
    return group if isinstance(group, h5py.Group) else None


def check_table(data: h5py.Dataset, tables: h5py.Group) -> None:
    """Check that the ``frames`` table has a row for every frame; FormatError otherwise.

    In a file that is being written it may have more rows, of frames that came meanwhile.
    """
    frames, live = data.shape[0], data.file.swmr_mode
    with reading(tables, "the table 'frames'"):
        table = tables.get("frames")
        if live and isinstance(table, h5py.Dataset):
            table.refresh()
    rows = len(table) if isinstance(table, h5py.Dataset) and table.shape else None
    if rows != frames and not (live and rows is not None and rows > frames):
        found = f"its table {rows}" if rows is not None else "but its table is missing"
        raise FormatError(f"{data.name} has {frames} frames, {found}")


def is_tezip(item) -> bool:
    """Whether `item` is a dataset with our filter."""
    if not isinstance(item, h5py.Dataset) or item.chunks is None:
        return False
    pipeline = item.id.get_create_plist()
    return any(pipeline.get_filter(i)[0] == FILTER_ID for i in range(pipeline.get_nfilters()))


def find_stacks(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All compressed datasets of a file, by the names of their stacks.

    The name of a stack is that of the group that ``write`` made, or the dataset's own path.
    """
    found = {}

    def visit(name, item):
        if is_tezip(item) and not f"/{name}".startswith(INCOMING):
            found[_name_of(item)] = item

    visit_all(file, visit)
    return found


def visit_all(group: h5py.Group, function):
    """``group.visititems``; FormatError where the file's structure is damaged."""
    with _structure_of(group.file):
        return group.visititems(function)


@contextlib.contextmanager
def _structure_of(file: h5py.File):
    """Raise FormatError if HDF5 cannot read a file's structure; h5py has various errors for it."""
    try:
        yield
    except TezipError:
        raise
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        if disk_error(error) or getattr(error, "errno", None) is not None:
            raise
        raise FormatError(
            f"{file.filename} is damaged, HDF5 says: {error.args[0]}; restore it"
        ) from None


def _name_of(data: h5py.Dataset) -> str:
    """The name of a stack, given its dataset; if there are several links, the one compressed."""
    tables = tables_of(data)
    path = data.name
    if tables is None or tables.name is None:  # a killed writer may leave tables without a name
        return path.strip("/")
    if tables.name.startswith(f"{STACKS}/"):
        path = tables.name[len(STACKS) :]
    elif tables.get("data") == data:
        path = tables.name
    return path.strip("/")


def staging_group(file: h5py.File) -> h5py.Group:
    """A new group for a stack until it is complete; leftovers of killed writers are removed."""
    if INCOMING in file:
        del file[INCOMING]
    return file.create_group(f"{INCOMING}/stack")


def drop_staging(file: h5py.File) -> None:
    """Remove the staging group, and /tezip when nothing else is in it."""
    if INCOMING in file:
        del file[INCOMING]
    if "/tezip" in file and len(file["/tezip"]) == 0:
        del file["/tezip"]


@contextlib.contextmanager
def replacing(file: h5py.File, name: str):
    """Make an object under a name that may be taken.

    The old object is removed when the new one is complete, and restored if that fails.
    """
    aside = f"{REPLACED}-{uuid4().hex[:8]}"  # that of a killed writer may still exist
    there = name in file
    try:
        if there:
            with _structure_of(file):
                file.move(name, aside)
        yield
    except BaseException:
        with _structure_of(file):
            if name in file and (aside in file or not there):
                del file[name]
            if aside in file:
                file.move(aside, name)
            drop_staging(file)
        raise
    with _structure_of(file):
        if aside in file:
            del file[aside]


def finish_group(group: h5py.Group, data: h5py.Dataset) -> None:
    """Set the attributes of a stack's group: the version, how to read it, NeXus's marks."""
    if data.name == f"{group.name}/data":
        nexus.mark_stack(group, data)
    group.attrs["tezip_h5"] = __version__
    group.attrs["how_to_read"] = READ_ME
    data.attrs["tezip"] = group.ref


def check_place(file: h5py.File, path, name: str, overwrite: bool) -> None:
    """Check that a stack may be written to `name` of a file; InputError otherwise."""
    above = name.split("/")[:-1]
    for depth in range(1, len(above) + 1):
        place = "/".join(above[:depth])
        if place in file and not isinstance(file.get(place), h5py.Group):
            raise InputError(f"{place} of {path} is no group; give another name than {name!r}")
    if name not in file:
        return
    if not overwrite:
        raise name_taken(path, name)
    item = file.get(name)
    if isinstance(item, h5py.Datatype):
        raise InputError(f"{name!r} of {path} is a named type, no stack; give another name")
    if isinstance(item, h5py.Group) and not _is_whole_stack(item):
        raise InputError(
            f"{name!r} of {path} is a group that holds no stack, and is not replaced; give "
            "another name, or delete it yourself"
        )
    inner = _stack_within(item) if isinstance(item, h5py.Group) else None
    if inner is not None:
        raise InputError(
            f"{name!r} of {path} is not replaced: another stack, {inner}, lies in its group and "
            "would go with it; give another name, or move or delete that one first"
        )


def _is_whole_stack(group: h5py.Group) -> bool:
    """Whether `group` is a stack that tezip_h5 made, with its tables.

    It is not, if another program made the group and only a dataset in it was compressed.
    """
    data = group.get("data")
    return is_tezip(data) and tables_of(data) == group


def _stack_within(group: h5py.Group) -> str | None:
    """The path of a stack that lies in the group of another, or None."""
    data = group["data"]
    return visit_all(group, lambda _, item: item.name if is_tezip(item) and item != data else None)


def keep_off_the_end(file: h5py.File) -> None:
    """Write some bytes behind the last chunk, because HDF5 reuses the place at a file's end."""
    guard = file.require_group(INCOMING)
    if "guard" in guard:
        del guard["guard"]
    guard.create_dataset("guard", data=np.zeros(_GUARD_BYTES, np.uint8))


def note(group: h5py.Group, name: str, value) -> None:
    """Set an attribute; an existing one is overwritten in place, which SWMR mode requires."""
    old = np.asarray(group.attrs.get(name))
    if old.shape or old.dtype.kind != np.asarray(value).dtype.kind:  # none, or another program's
        group.attrs[name] = value
    elif old != value:
        group.attrs.modify(name, value)


def name_taken(path, name) -> InputError:
    """The error for a stack whose name is taken."""
    return InputError(
        f"{path} already holds {name!r}; give another name, or overwrite=True to replace it"
    )
