"""Pure decisions: what to batch, admit, retry, restart. Time and randomness come in as arguments; nothing is
mutated."""
