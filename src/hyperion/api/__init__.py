"""Management HTTP: reads, and writes desired state. Never here: acting on it."""
