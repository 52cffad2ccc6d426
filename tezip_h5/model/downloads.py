"""Downloading large files: sizes are asked for first, interrupted downloads are continued."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from tezip_h5.errors import InputError
from tezip_h5.progress import Bar

__all__ = ["fetch", "part_of", "remote_size"]

_BLOCK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_ATTEMPTS = 3  # a download fails after so many attempts in a row without new bytes


def remote_size(url: str) -> int:
    """The size of a file on the server; InputError if the server does not tell it."""
    with _answer(url, method="HEAD") as answer:
        size = answer.headers.get("Content-Length")
    if size is None or not size.isdigit():
        raise InputError(f"{url}: the server does not say how large the file is; use another one")
    return int(size)


def part_of(target: Path) -> Path:
    """The path of an unfinished download of `target`."""
    return target.with_name(f"{target.name}.part")


def fetch(url: str, target: Path, size: int, bar: Bar) -> None:
    """Download a file, or the rest of it; `target` appears when it is complete.

    Parameters
    ----------
    url : str
    target : path
        An unfinished download stays beside it, as ``<name>.part``.
    size : int
        Size that the file must have.
    bar : Bar
        Advanced by bytes, those from an earlier attempt included.

    Raises
    ------
    InputError
        When the server refuses, stops half-way again and again, or sends another size.
    """
    part, idle = part_of(target), 0
    have = part.stat().st_size if part.exists() else 0
    if have > size:  # it must be of another file
        part.unlink()
        have = 0
    bar.update(have)
    while have < size:
        reason = _continue(url, part, have, size, bar)
        came = part.stat().st_size if part.exists() else 0
        idle = idle + 1 if came <= have else 0
        have = came
        if idle == _ATTEMPTS:
            raise InputError(
                f"{url} stopped after {have} of {size} bytes ({reason}); call again, and it goes "
                "on from there"
            )
    if have != size:
        part.unlink()
        raise InputError(f"{url} sent {have} bytes, {size} were announced; call again")
    part.touch()  # a file of no bytes
    os.replace(part, target)


def _continue(url: str, part: Path, have: int, size: int, bar: Bar) -> str:
    """Append the server's bytes to a part; returns why the download ended."""
    with _answer(url, {"Range": f"bytes={have}-"} if have else {}) as answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        _check_total(url, answer, size, have if resumed else 0)
        if have and not resumed:  # a server without range requests sends the whole file
            bar.update(-have)
        with open(part, "ab" if resumed else "wb") as file:
            try:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
            except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
                return str(error) or type(error).__name__
    return "the connection was closed"


def _check_total(url: str, answer, size: int, start: int) -> None:
    length = answer.headers.get("Content-Length")
    found = start + int(length) if length and length.isdigit() else size
    told = answer.headers.get("Content-Range", "")
    if start and not told.startswith(f"bytes {start}-"):
        raise InputError(f"{url}: the server sent {told or 'no range'}, not bytes {start}-")
    if found != size:
        raise InputError(
            f"{url} has {found} bytes now, {size} were announced before; remove the .part file "
            "beside the target and call again"
        )


@contextmanager
def _answer(url: str, headers=None, method: str = "GET"):
    """The server's answer; errors of urllib become InputError."""
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url} is no address of a web server; it begins with http:// or https://")
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        raise InputError(
            f"{url}: the server says {error.code} {error.reason}; is the base address right?"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as e:
        reason = getattr(e, "reason", None) or e
        raise InputError(f"{url} cannot be reached: {reason}; try again, or another one") from None
