"""The files of versions, each once, under the SHA-256 of its content: in a directory, an OCI layout or a bucket."""
