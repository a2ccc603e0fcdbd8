"""Frozen records and errors that both planes share. No behaviour, no I/O, no imports from other rooms."""
