"""Recognition engines. Each vendor library is imported only in its own module, when it is first used."""
