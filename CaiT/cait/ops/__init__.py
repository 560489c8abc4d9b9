"""Paddle operators in C++ for inference on CPUs: patch embedding, self-attention blocks, class-attention blocks."""
