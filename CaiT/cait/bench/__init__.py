"""What this project costs in time and memory, measured."""
