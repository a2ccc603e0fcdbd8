"""HTTP/2 as a server speaks it (RFC 9113): bytes to requests, answers to bytes."""
