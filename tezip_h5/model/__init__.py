"""Models: where a network comes from. Decoding needs only `store`."""
