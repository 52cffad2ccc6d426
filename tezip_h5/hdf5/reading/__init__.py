"""Frames out of a file: read, extracted, listed, reported, verified."""
