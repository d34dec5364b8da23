"""Sphinx settings; `make docs` builds with warnings as errors."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = next(
    ast.literal_eval(node.value)
    for node in ast.parse((ROOT / "cacheadmin" / "__init__.py").read_text()).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
)

project = "cacheadmin"
author = "cacheadmin contributors"
copyright = f"2026, {author}"
release = version = VERSION

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["requirements*"]
html_theme = "furo"
html_title = f"cacheadmin {release}"
