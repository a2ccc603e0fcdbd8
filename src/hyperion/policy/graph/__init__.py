"""Endpoints that are made of others: what each step is fed with, and how their answers become one."""
