"""Whole files: converted, recompressed, repaired."""
