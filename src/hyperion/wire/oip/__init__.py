"""Open Inference Protocol V2: over HTTP and gRPC, as a server and as a client."""
