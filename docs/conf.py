"""Sphinx settings of both editions: `sphinx-build -c docs -D language=zh_CN docs/zh docs/_build/html/zh` (`make docs`)."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "tcb-ops"
release = installed_version("tcb-ops")
html_title = project
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "tcb_docs"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
smartquotes = False  # it would make one dash of an option's two
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
python_maximum_signature_line_length = 80
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": ["view"], "source_repository": ""}
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_show_copyright = False
