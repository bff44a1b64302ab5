"""One metric per file: (attributions, context) -> one score per item."""
