"""Score whole tables with a model: read columns, compute in runners, write parts, exactly once. Wired by `cli`."""
