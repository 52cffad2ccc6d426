"""``--device`` and the manual's ``-f``: where a command runs."""

from __future__ import annotations

from tezip_h5 import devices
from tezip_h5.errors import InputError

__all__ = ["add_device_option", "device_of", "mode_of"]


def add_device_option(parser) -> None:
    """--device, for a command."""
    parser.add_argument(
        "--device",
        choices=devices.DEVICES,
        default="auto",
        help="the processor that encodes and decodes; auto takes that of TEZIP_DEVICE, else a GPU "
        "if there is one and the work is large (default: %(default)s)",
    )


def device_of(args) -> str:
    """The device that a command line asks for, with -f or --device.

    Raises
    ------
    InputError
        When the two contradict each other.
    """
    device = getattr(args, "device", "auto")
    if not getattr(args, "force", False):
        return device
    if device == "cuda":
        raise InputError("-f is for the CPU, --device cuda for the GPU; give one of them")
    return "cpu"


def mode_of(device: str) -> str:
    """The first line that a command prints, as in the manual; `device` is "cpu" or "cuda"."""
    return "GPU MODE" if device == "cuda" else "CPU MODE"
