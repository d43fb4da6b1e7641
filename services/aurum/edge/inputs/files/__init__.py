"""Files that are dropped in a folder."""
