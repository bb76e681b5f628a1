"""The documentation as a site: `make site`."""

project = "Portcullis"
html_title = "Portcullis"
html_theme = "furo"
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_heading_anchors = 4  # "#a-heading" is a link, as it is where the pages are read as files
myst_fence_as_directive = ["mermaid"]
nitpicky = True
