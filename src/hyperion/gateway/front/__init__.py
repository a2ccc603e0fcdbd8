"""What stands between callers and an endpoint: who they are, what they may ask, and what a request must look like."""
