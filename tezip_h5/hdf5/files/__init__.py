"""Files that other processes use, too: opening them, changing them all at once, placing them."""
