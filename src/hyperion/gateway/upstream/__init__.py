"""Other servers that answer for an endpoint."""
