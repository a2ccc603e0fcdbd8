"""What is done when a try fails: another one, another replica, another endpoint, an answer that is at hand."""
