"""Commands, and the `main` of every process: configuration is resolved once and the rooms are wired together here."""
