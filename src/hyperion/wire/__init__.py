"""Sans-I/O codecs of every protocol: bytes in, frozen records out, and back. No sockets, no clocks, no logging."""
