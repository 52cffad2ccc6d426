"""``tezip-h5 plugin path``: where the C plugin is."""

from __future__ import annotations

from tezip_h5.errors import InputError
from tezip_h5.hdf5.pipeline import plugin

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    """Add the command and its own command to the parser."""
    parser = commands.add_parser(
        "plugin",
        help="where the plugin for HDF5's own tools is",
        description="The HDF5 plugin for tools that are not Python: h5dump, HDFView, MATLAB and "
        'others read compressed stacks after export HDF5_PLUGIN_PATH="$(tezip-h5 plugin path)".',
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    path = verbs.add_parser("path", help="print the folder for HDF5_PLUGIN_PATH")
    path.set_defaults(run=_path)


def _path(args) -> None:
    if plugin.library() is None:
        raise InputError(
            f"no plugin in {plugin.PLUGIN_PATH}: no C compiler was found when tezip_h5 was "
            "installed; install one and tezip_h5 again, or build it as filters/README.md says"
        )
    print(plugin.PLUGIN_PATH)
