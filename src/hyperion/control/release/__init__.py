"""Rollouts: what is aimed at, seen, decided and kept, look by look."""
