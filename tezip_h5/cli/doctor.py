"""``tezip-h5 doctor``: check the installation, and say what to do about each problem."""

from __future__ import annotations

import json
from dataclasses import asdict

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="check the installation, and say what to do about each problem",
        description="Check versions, GPU, compiled kernels, HDF5 filter, C plugin and models. A "
        "line with ! is an error, a line with ~ a warning. The exit status is 1 if there is an "
        "error. Please put the output into bug reports.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Examine; print what was found."""
    from tezip_h5.cli.checkup import ODD, OK, WRONG, examine

    findings = list(examine())
    wrong = sum(found.state == WRONG for found in findings)
    odd = sum(found.state == ODD for found in findings)
    if args.json:
        rows = [asdict(found) for found in findings]
        print(json.dumps({"healthy": wrong == 0, "findings": rows}, indent=1))
        return int(wrong > 0)
    part = None
    for found in findings:
        if found.part != part:
            part = found.part
            print(part)
        mark = {OK: " ", ODD: "~", WRONG: "!"}[found.state]
        print(f"{mark} {found.name}: {found.value}")
        if found.advice:
            print(f"      -> {found.advice}")
    print(f"{wrong} error(s), {odd} warning(s)" if wrong or odd else "no problems found")
    return int(wrong > 0)
