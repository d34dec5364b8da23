"""An app that only tests install: the kinds of model that the shop has no use for."""
