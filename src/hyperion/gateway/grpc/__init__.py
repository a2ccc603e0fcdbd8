"""gRPC over an HTTP/2 of our own (ADR 0010): the services, and the calls that they serve."""
