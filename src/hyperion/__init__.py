"""Hyperion: a self-hosted ML inference platform. Rooms and who may know whom: `docs/architecture.md`."""

__version__ = "0.1.0"
