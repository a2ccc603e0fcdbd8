"""Who may call and what they used: for gateways, from the store and from issuers."""
