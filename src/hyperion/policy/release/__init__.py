"""How a new version goes live: stages, looks, metrics and moves of a rollout, and what is judged in it."""
