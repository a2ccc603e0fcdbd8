"""Requests whose answer is kept by control: idempotent ones, and those that are answered later."""
