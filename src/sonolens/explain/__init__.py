"""One attribution method per file: (model, input, scalar target, baseline) -> map."""
