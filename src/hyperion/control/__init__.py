"""Observe, decide (`policy.placement`), apply, publish: a loop that may be killed at any time. No HTTP handlers."""
