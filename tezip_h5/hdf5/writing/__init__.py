"""Writing stacks into a file, whole or frame by frame, encoded by threads or by a cluster."""
