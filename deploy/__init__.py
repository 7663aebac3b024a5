"""How stethopi gets onto a card and stays healthy; the wire contract's JSON Schemas."""
