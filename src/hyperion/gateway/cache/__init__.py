"""Answers that may be given again, and requests that wait for the same one."""
