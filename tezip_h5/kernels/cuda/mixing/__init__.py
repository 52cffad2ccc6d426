"""The mixing coder on the device."""
