"""gRPC's messages, framing and reflection. What they mean is in `oip/`."""
