"""Detection on the test split, and its metrics."""
