"""The app whose rows all peers cache."""
