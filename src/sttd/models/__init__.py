"""Models on disk: the catalog of known models, the sources to download them from, and the store that keeps them."""
