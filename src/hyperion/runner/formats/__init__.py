"""A loader per format: from a file or a directory to a model that answers batches."""
