"""Start, stop and observe replicas: the supervisor, its protocol, local processes. Never here: knowing why."""
