"""Compressing a dataset in place: it keeps its path, its attributes and its links.

The original stays until the compressed one has been read back and compared.
"""

from __future__ import annotations

import contextlib

import h5py

from tezip_h5.errors import InputError
from tezip_h5.hdf5.contents import container, nexus
from tezip_h5.hdf5.contents.copying import copy_attributes
from tezip_h5.hdf5.contents.keyframes import link_keyframes
from tezip_h5.hdf5.reading import verifying
from tezip_h5.hdf5.writing.plan import Job
from tezip_h5.hdf5.writing.summary import Stopwatch, Summary, summarise

__all__ = ["compress"]


def compress(dataset: h5py.Dataset, job: Job, watch: Stopwatch) -> Summary:
    """Replace `dataset` by its compressed form; returns the summary.

    Raises
    ------
    InputError
        When the file is read-only, the dataset is compressed already, or other links to it
        cannot be changed.
    """
    file, path = dataset.file, dataset.name
    _check(dataset, file, path)
    links = _other_links(dataset, file, path)
    freed = dataset.id.get_storage_size()
    staging = container.staging_group(file)
    try:
        encoder = job.run(staging)
        verifying.compare(encoder.data, job.source, job.plan.bound)
        nexus.unmark(staging, encoder.data)
        copy_attributes(dataset, encoder.data, besides=["tezip"])
        file.flush()  # after a kill, no link may lead to an object that is not on the disk
    except BaseException:
        container.drop_staging(file)
        file.flush()
        raise
    tables = f"{container.STACKS}{path}"
    with contextlib.ExitStack() as swap:
        swap.enter_context(container.replacing(file, tables))
        file.require_group(tables.rpartition("/")[0])
        file.move(staging.name, tables)
        for link in (path, *links):
            swap.enter_context(container.replacing(file, link))
            file[link] = encoder.data
        link_keyframes(file[tables], file[path], encoder.keyframes)
        del file[tables]["data"]
        swap.enter_context(_scales_moved(dataset, encoder.data))
        file.flush()
    container.drop_staging(file)
    file.flush()
    size = file.id.get_filesize()
    return summarise(file.filename, path.strip("/"), encoder, watch, size, freed)


def _check(dataset: h5py.Dataset, file: h5py.File, path: str | None) -> None:
    if file.mode != "r+":
        raise InputError(
            f"{file.filename} is open read-only; open it with mode 'r+' to compress "
            f"{path} where it stands, or give a path for a new file"
        )
    if path is None:
        raise InputError("an anonymous dataset has no place to stand; give a path")
    if container.is_tezip(dataset):
        raise InputError(f"{path} is compressed with tezip already; give a path to write it anew")
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{path} keeps its samples in other files; give a path for a new file")


def _other_links(dataset: h5py.Dataset, file: h5py.File, path: str) -> list[str]:
    """Paths of further hard links to the dataset."""
    count = h5py.h5o.get_info(dataset.id).rc
    if count == 1:
        return []
    found = []

    def visit(name, link):
        if isinstance(link, h5py.HardLink) and f"/{name}" != path and file[name] == dataset:
            found.append(f"/{name}")

    file.visititems_links(visit)
    if len(found) != count - 1:
        raise InputError(
            f"{path} has {count} hard links, {len(found) + 1} of them were found; compressing it "
            "in place would leave the others with the original: give a path for a new file"
        )
    return found


@contextlib.contextmanager
def _scales_moved(source: h5py.Dataset, target: h5py.Dataset):
    """Move the dimension scales in a `with` block; they are moved back if it fails."""
    try:
        _move_scales(source, target)
        yield
    except BaseException:
        _move_scales(target, source)
        raise


def _move_scales(source: h5py.Dataset, target: h5py.Dataset) -> None:
    """Attach the source's dimension scales and labels to the target.

    If the source is itself a scale of other datasets, the target becomes one of them instead.
    """
    for i, dimension in enumerate(source.dims):
        if dimension.label:
            target.dims[i].label = dimension.label
        for scale in list(dimension.values()):
            target.dims[i].attach_scale(scale)
            dimension.detach_scale(scale)
    if h5py.h5ds.is_scale(source.id):
        for reference, i in source.attrs.get("REFERENCE_LIST", ()):
            user = source.file[reference]
            user.dims[i].attach_scale(target)
            user.dims[i].detach_scale(source)
