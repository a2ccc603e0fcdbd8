"""The walls around a model: what its process gives up before it reads a byte of it."""
