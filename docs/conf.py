"""Sphinx's settings: ``sphinx-build -W -c docs . OUT`` from the project's folder.

The source folder is the project's, so that the documents which stand there (FORMAT.md, the README
of the C plugin and so on) are pages as they are, and their links lead where they lead on disk.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "tezip_h5"
author = "the tezip_h5 developers"
copyright = author
release = version = importlib.import_module("tezip_h5.version").__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "FORMAT.md",
    "CHANGELOG.md",
    "filters/README.md",
    "benchmarks/*.md",
    "benchmarks/results/*.md",
]
suppress_warnings = ["myst.header"]  # the tables of results skip a level
myst_heading_anchors = 3
default_role = "code"
autodoc_typehints = "none"
# Extras that what is described imports: its pages are made without them, too.
autodoc_mock_imports = [name for name in ("zarr",) if importlib.util.find_spec(name) is None]
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
html_theme = "furo"
html_title = f"tezip_h5 {release}"
html_show_copyright = False
html_copy_source = False


def setup(app):
    """In docstrings bars are magnitudes, not substitutions; the site's front page is index.html."""
    app.connect("autodoc-process-docstring", _keep_bars)
    app.connect("build-finished", _lead_to_the_front)


def _keep_bars(app, what, name, obj, options, lines):
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else line.replace("|", "\\|")
        for line in lines
    ]


def _lead_to_the_front(app, error):
    if error is None and app.builder.name == "html":
        place = f"{root_doc}.html"
        Path(app.outdir, "index.html").write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><title>{project}</title>'
            f'<meta http-equiv="refresh" content="0; url={place}"><a href="{place}">{project}</a>\n'
        )
