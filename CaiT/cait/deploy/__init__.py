"""From a trained model to a program that Paddle Inference runs."""
