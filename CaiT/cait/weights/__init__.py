"""Weights files of all formats: found, checked, read, converted, downloaded. Nothing here knows of training."""
