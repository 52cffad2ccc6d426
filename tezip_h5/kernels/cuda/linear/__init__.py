"""The linear coder on the device."""
