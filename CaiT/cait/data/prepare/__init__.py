"""Makes data sets and list files, for `prepare_data.py`."""
