"""The jewelry shop: a small multi-tenant site that `make demo` runs and that the tests use."""
