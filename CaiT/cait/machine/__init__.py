"""What this machine has: processor, devices, compilers, PaddlePaddle itself."""
