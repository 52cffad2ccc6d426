"""Reading stacks from a file, extracting images, reporting and verifying."""
