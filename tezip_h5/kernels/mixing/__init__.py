"""The mixing coder, for the processor; of much the plain functions are the device's, too."""
