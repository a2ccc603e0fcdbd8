"""Other servers that answer for endpoints: what each says of its model."""
