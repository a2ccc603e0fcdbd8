"""One file per command of `hyperion`, and what several commands share."""
