"""Endpoints that are made of others: pipelines, ensembles, switches, cascades."""
