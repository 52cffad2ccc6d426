"""The linear coder, for the processor."""
