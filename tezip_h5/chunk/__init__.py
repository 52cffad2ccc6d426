"""One chunk: from its samples to the sections of a payload, and back."""
