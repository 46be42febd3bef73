"""Configuration of the documentation: `make docs` builds it with warnings as errors."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from generators import command_help, method_pages  # noqa: E402

import alignbench  # noqa: E402

project = "alignbench"
author = "The alignbench developers"
copyright = "The alignbench developers, Apache-2.0"
version = release = alignbench.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_generated", "jupyter_execute", "generators"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_execution_in_temp = True
nb_output_stderr = "remove"
copybutton_exclude = ".linenos, .gp, .go"

default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = True

html_theme = "pydata_sphinx_theme"
html_title = "alignbench"
html_static_path = ["_static"]
html_css_files = ["alignbench.css"]
html_show_sourcelink = False
html_sidebars = {
    page: []
    for page in ("index", "quickstart", "concepts", "configuration", "cli", "api", "architecture", "contributing")
}
html_theme_options = {
    "logo": {"text": "alignbench"},
    "header_links_before_dropdown": 6,
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def show_equations_verbatim(app, what, name, obj, options, lines: list[str]) -> None:
    """Turn the indented blocks of the docstrings of alignbench.equations into literal blocks."""
    if not name.startswith("alignbench.equations"):
        return
    shown: list[str] = []
    for line in lines:
        indented = line.startswith("    ")
        if indented and not (shown and shown[-1].startswith("    ")) and not (len(shown) > 1 and shown[-2] == "    "):
            shown += [".. code-block:: text", ""]
        shown.append(line if indented else line.replace("|", "\\|"))
    lines[:] = shown


def setup(app) -> None:
    """Register the hook."""
    app.connect("autodoc-process-docstring", show_equations_verbatim, priority=600)


os.environ.setdefault("OMP_NUM_THREADS", "1")
method_pages.write(DOCS / "methods")
command_help.write(DOCS / "_generated")
