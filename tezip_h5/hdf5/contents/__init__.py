"""The contents of a file: datasets, the tables beside them, networks, links for viewers."""
