"""The breaker: failure counts folded from delivery-results. Nothing folds them yet."""
