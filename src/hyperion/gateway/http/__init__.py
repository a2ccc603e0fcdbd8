"""HTTP/1.1: bytes to exchanges, exchanges to calls, answers to bytes."""
