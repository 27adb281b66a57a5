"""The breaker: failure counts folded from delivery-results, and what follows from them."""
