"""Frames into a file: whole stacks and those that grow, encoded by threads or by a cluster."""
