"""Training, evaluation and prediction: the jobs of `main_single_gpu.py`."""
