"""Several versions of one endpoint side by side: who gets which, and what is seen of each."""
