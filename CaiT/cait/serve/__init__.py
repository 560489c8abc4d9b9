"""The HTTP service on a bundle, and its web page."""
