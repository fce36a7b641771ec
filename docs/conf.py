import sys
from pathlib import Path

from surefoot import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Surefoot"
author = "The Surefoot maintainers"
project_copyright = "The Surefoot maintainers, MIT licence"
release = version = __version__

extensions = ["myst_parser", "surefoot_docs"]
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True
# Options begin with two dashes and stay so.
smartquotes = False

html_theme = "alabaster"
html_theme_options = {
    "description": "Reliable stack traces and live patching for arm64 Linux kernels",
    "fixed_sidebar": True,
    "page_width": "70em",
    "sidebar_width": "16em",
}
html_copy_source = False
html_show_sourcelink = False
