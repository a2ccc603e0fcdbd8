"""The hot path: parse, admit, route, batch, dispatch, answer. Holds one immutable snapshot; never blocks."""
