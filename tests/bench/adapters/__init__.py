"""How each peer does each piece of work, as its own documentation says to."""
