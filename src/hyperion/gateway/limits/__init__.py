"""How much may come: rates, open requests and quotas, in one gateway and in all of them together."""
