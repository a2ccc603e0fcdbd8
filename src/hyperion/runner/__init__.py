"""One model version in one process: load, warm up, predict. Synchronous; no HTTP, no store."""
