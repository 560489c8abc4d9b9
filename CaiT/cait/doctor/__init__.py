"""What a machine and its environment are, and whether everything of this project works on them, for `doctor.py`."""
