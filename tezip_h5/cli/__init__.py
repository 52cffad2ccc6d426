"""The command line: ``tezip-h5 COMMAND``; one file per command.

Exit codes: 0 done, 1 the user's input is wrong, 2 the file is damaged or the bound is
broken, 130 interrupted or terminated, 141 the reader of the output has closed it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from tezip_h5.errors import FormatError, InputError, TezipError, disk_error
from tezip_h5.version import __version__

__all__ = ["Parser", "guarded", "main"]


class Parser(argparse.ArgumentParser):
    """argparse's parser, except that a wrong command line exits with 1, like all wrong input.

    Attributes
    ----------
    intermixed : bool
        Whether options may stand between its arguments although the first of these may be left out.
    """

    intermixed = False

    def parse_args(self, args=None, namespace=None):
        """Parse as argparse does, but refuse empty arguments.

        An empty argument is mostly an unset variable of the shell. It would mean the current
        folder, or that an option was not given.
        """
        args = sys.argv[1:] if args is None else list(args)
        for before, text in zip([self.prog, *args], args, strict=False):
            advice = "give a name or a value (is a variable of the shell not set?)"
            if not text:
                self.error(f"the argument after {before} is empty; {advice}")
            if text.startswith("--") and text.partition("=")[1:] == ("=", ""):
                self.error(f"{text} is empty; {advice}")
        return super().parse_args(args, namespace)

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does, or its `parse_known_intermixed_args` (which may call this)."""
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def guarded(prog: str, run: Callable[[], int | None]) -> int:
    """Run a command; turn the errors that it may raise into one line and an exit code.

    Slow imports belong into `run`, so that they can be interrupted, too.
    """
    _take_any_name()
    try:
        if sys.stdout is None:  # print would do nothing, without an error
            raise InputError("standard output is closed; send it to a file, or to /dev/null")
        with _plain_warnings(prog), _terminated_as_interrupted():
            code = run() or 0
            sys.stdout.flush()  # an error is handled below
            return code
    except TezipError as error:
        print(f"{prog}: {_in_flags(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if _is_output_lost(error) and isinstance(error, BrokenPipeError):
            return 141  # as programs that SIGPIPE ends: `head` has seen enough
        if error.errno is None and _of_hdf5(error):
            return _say_damage(prog, error)
        of_the_disk = disk_error(error)
        known = of_the_disk is not None and of_the_disk.filename
        said = str(of_the_disk if known else error)
        print(f"{prog}: {' '.join(said.splitlines())}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError, KeyError, ValueError) as error:
        if _of_hdf5(error):
            return _say_damage(prog, error)
        if not (lacking := _lacking(error)):
            raise
        print(f"{prog}: {lacking}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130


def _say_damage(prog: str, error: BaseException) -> int:
    """Print why HDF5, our filter or the disk failed; returns the exit code."""
    cause = _of_filter(error)
    if isinstance(cause, TezipError):
        print(f"{prog}: {cause}", file=sys.stderr)
        return cause.exit_code
    if lacking := _lacking(cause):
        print(f"{prog}: {lacking}", file=sys.stderr)
        return 1
    if of_the_disk := disk_error(error):
        print(f"{prog}: {of_the_disk}", file=sys.stderr)
        return 1
    text = " ".join(str(error.args[0] if error.args else error).split())
    print(f"{prog}: a file is damaged, HDF5 says: {text}; restore it", file=sys.stderr)
    return FormatError.exit_code


def _of_filter(error: BaseException) -> BaseException | None:
    """The exception of our filter, if HDF5's error says that the filter failed."""
    from tezip_h5.hdf5.pipeline.filter import last_error

    return last_error() if "filter returned failure" in str(error) else None


def _lacking(error: BaseException | None) -> str:
    """A message if memory or threads are lacking, with advice; empty for other errors."""
    if isinstance(error, MemoryError):
        found = f" ({error})" if str(error) else ""
        return f"out of memory{found}; give fewer --threads, or end other programs"
    if str(error) == "can't start new thread":  # Python has no class for it
        return f"{error}: this user may have no more; end other programs, or raise the limit"
    return ""


def _take_any_name() -> None:
    r"""Let print write file names that are not UTF-8 with \x.. escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _in_flags(message: str) -> str:
    """A message of the library with its Python options replaced by those of the command line."""
    return re.sub(r"\baxes=(?=')", "--axes ", message.replace("overwrite=True", "--overwrite"))


def _is_output_lost(error: OSError) -> bool:
    """Whether standard output can no longer be written; if so, it is redirected to nowhere, so
    that Python does not fail when it ends."""
    try:
        # A broken pipe may have lost its data already. Only a new write shows which pipe it was.
        print(end="\n" if isinstance(error, BrokenPipeError) else "", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM (of batch systems) and SIGHUP (of a closed terminal) like Ctrl-C, unless they
    are ignored (nohup)."""
    taken = []
    if threading.current_thread() is threading.main_thread():
        ending = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # one on Windows
        taken = [number for number in ending if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _of_hdf5(error: BaseException) -> bool:
    """Whether h5py raised an error because of a damaged file."""
    innermost = error.__traceback__
    while innermost.tb_next is not None:
        innermost = innermost.tb_next
    if "h5py" not in Path(innermost.tb_frame.f_code.co_filename).parts:
        return False
    # Our own mistakes can raise KeyError and ValueError, too. Those count only if HDF5 gives a
    # reason, in brackets.
    text = str(error.args[0]) if error.args else ""
    own = isinstance(error, (KeyError, ValueError))
    return not own or (text.endswith(")") and "doesn't exist" not in text)


@contextlib.contextmanager
def _plain_warnings(prog: str) -> Iterator[None]:
    """Warnings as one line each, without the line of our source that gave them."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: (
        f"{prog}: warning: {' '.join(str(message).split())}\n"
    )
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _parser() -> Parser:
    from tezip_h5.cli import (
        bench,
        compress,
        convert,
        decompress,
        demo,
        doctor,
        inspect,
        kitti,
        model,
        plugin,
        prepare,
        recompress,
        references,
        repair,
        train,
        train_data,
        verify,
    )

    parser = Parser(
        prog="tezip-h5",
        description="Error-bounded compression of image stacks inside HDF5.",
    )
    parser.add_argument("--version", action="version", version=f"tezip_h5 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        compress,
        decompress,
        convert,
        recompress,
        repair,
        inspect,
        verify,
        train,
        train_data,
        kitti,
        model,
        plugin,
        references,
        prepare,
        bench,
        demo,
        doctor,
    ):
        module.add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``tezip-h5``."""
    return guarded("tezip-h5", lambda: _run(argv))


def _run(argv: list[str] | None) -> int | None:
    args = _parser().parse_args(argv)
    return args.run(args)
