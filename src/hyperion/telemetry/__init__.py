"""One finished request record in; metrics and a log line out."""
