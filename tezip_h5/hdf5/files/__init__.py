"""Files that others have, too: opened with care, changed all at once, put in place."""
