"""One file per server under test; see ``bench.registry``."""
