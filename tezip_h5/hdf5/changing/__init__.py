"""Changing whole files: `convert`, `recompress` and `repair`."""
