"""One file per topic; each has `cases()`."""
