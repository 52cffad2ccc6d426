"""What lies where in a file: the dataset, the tables beside it, networks, links for viewers."""
