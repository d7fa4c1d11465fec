"""Data planes behind one protocol: one file (or folder) per router."""
