"""Describes a machine and its environment, and checks whether this project works on them, for `doctor.py`."""
