"""`python -m hyperion` is `hyperion`."""

from hyperion.cli.main import main

main()
