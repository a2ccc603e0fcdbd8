"""The verbs of the management API, over the store."""
