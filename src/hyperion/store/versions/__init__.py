"""From what lies at a PATH to a version of the registry, and back to files that a runner loads."""
