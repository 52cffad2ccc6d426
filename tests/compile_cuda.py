"""Compile every CUDA kernel to PTX, without a device, and report what ptxas makes of them.

    python tests/compile_cuda.py [--ptxas] [MODULE ...]

A process of its own, because the simulator of the tests would hide what does not compile. Prints
one line per kernel and signature; exits with 77 where the compiler (NVVM) is missing.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

CAPABILITY = (9, 0)
MODULES = ("cuda", "cuda.network", "cuda.linear.parallel", "cuda.linear.wave", "cuda.linear.rans")
MISSING = 77


def compiler_missing():
    """Why nothing can be compiled here, or None."""
    from numba import cuda, int32, void

    def nothing(out):
        out[0] = 0

    try:
        cuda.compile(nothing, void(int32[::1]), device=False, abi="numba", cc=CAPABILITY)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def assembled(ptx, ptxas):
    """Registers, bytes of shared memory, of the stack and of spills."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(re.sub(r"^\.version .*$", ".version 8.8", ptx, flags=re.MULTILINE))
        done = subprocess.run(
            [ptxas, "-v", "-arch=sm_90", "-o", os.devnull, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    numbers = [
        re.search(pattern, done.stderr)
        for pattern in (
            r"Used (\d+) registers",
            r"(\d+) bytes smem",
            r"(\d+) bytes stack frame",
            r"(\d+) bytes spill stores",
        )
    ]
    return tuple(int(found[1]) if found else 0 for found in numbers)


def main(arguments):
    os.environ["NUMBA_ENABLE_CUDASIM"] = "0"
    if reason := compiler_missing():
        print(reason)
        return MISSING
    from tezip_h5.kernels.cuda.launch import KERNELS

    asked = [a for a in arguments if not a.startswith("-")]
    for module in asked or MODULES:
        importlib.import_module(f"tezip_h5.kernels.{module}")
    ptxas = shutil.which("ptxas") if "--ptxas" in arguments else None
    # numba compiles the functions that kernels call for the device it finds.
    device = SimpleNamespace(compute_capability=CAPABILITY)
    patched = mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device)
    for name, kernel in KERNELS.items():
        if asked and name.rpartition(".")[0] not in asked:
            continue  # what is asked for imports those of the stages, too
        with patched:
            compiled = kernel.ptx(CAPABILITY)
        for ptx in compiled:
            assert ".visible .entry" in ptx, name
            report = ""
            if ptxas:
                registers, shared, stack, spills = assembled(ptx, ptxas)
                report = (
                    f" registers {registers}, shared {shared} B, stack {stack} B, spills {spills} B"
                )
            print(f"{name}{report}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
