"""Models on disk: the catalog of what there is, where it comes from, and the store that it is kept in."""
