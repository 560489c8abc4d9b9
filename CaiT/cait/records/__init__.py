"""What a run leaves to be read: its log, numbers, predictions and pictures."""
