"""The one exception tree: every error this package raises on purpose.

A message says what was found, what was expected, and what to do. The command
line turns the classes into exit codes; nothing else does.
"""

import os
import re

__all__ = [
    "BoundError",
    "DamagedModelError",
    "FormatError",
    "InputError",
    "ModelError",
    "OverrunError",
    "SelectionError",
    "TezipError",
    "disk_error",
]


class TezipError(Exception):
    """Base of every error raised on purpose by tezip_h5."""

    exit_code = 1


class InputError(TezipError, ValueError):
    """The caller's input cannot be used as it is: wrong shape, option, path or name."""


class SelectionError(InputError, IndexError):
    """Frames were asked for that the stack has not; an IndexError, as numpy's and h5py's."""


class ModelError(TezipError, LookupError):
    """A model is missing, foreign, or computes something else than it promised."""


class DamagedModelError(ModelError):
    """The bytes of a model are damaged."""

    exit_code = 2


class FormatError(TezipError, ValueError):
    """Bytes that claim to be a tezip payload or container are damaged or not ours."""

    exit_code = 2


class BoundError(TezipError, ArithmeticError):
    """A reconstructed sample lies outside its error bound. Never stored, always reported."""

    exit_code = 2


class OverrunError(TezipError, BufferError):
    """Frames came faster than they can be written, and the caller did not want to wait."""


def disk_error(error: BaseException) -> OSError | None:
    """The disk error that HDF5 reports in an exception, or None. h5py turns only some into OSError.

    Examples
    --------
    >>> disk_error(RuntimeError("not copied (filename = 'a.h5', errno = 28, error message = ''"))
    OSError(28, 'No space left on device')
    """
    number = re.search(r"\berrno = (\d+)", str(error))
    if number is None:
        return None
    name = re.search(r"name = '(.+?)', ", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), *([name[1]] if name else []))
