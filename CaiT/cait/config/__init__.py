"""The config of a job: its keys, YAML files, the flags that set it, and the copy in a run's folder.

`python -m cait.config` lists the keys.
"""
