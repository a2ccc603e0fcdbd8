"""What lies on disk: model repositories of every kind, digests, and the desired state of this installation.

Read by `control`, `api` and `cli`; never by the hot path. It describes models, and never loads one: no machine
learning framework is imported here.
"""
