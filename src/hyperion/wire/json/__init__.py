"""Tensors as JSON text, both ways. What is around them is the protocols' own."""
