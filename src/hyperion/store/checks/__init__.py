"""What the values of resources may be. Pure: each check raises what is wrong and where, or returns nothing."""
