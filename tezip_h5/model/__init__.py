"""Models: training, export and storage of the networks. Decoding needs only `store`."""
