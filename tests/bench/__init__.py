"""`make bench`: what cacheadmin costs beside its peers, in one interleaved run on an embedded server."""
