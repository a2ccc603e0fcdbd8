"""The benchmark harness: runs Hyperion beside its peers on one machine and quotes ratios (see README.md here)."""
