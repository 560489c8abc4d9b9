"""The evidence that this CaiT computes what the reference computes, step by step."""
