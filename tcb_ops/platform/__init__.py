"""The platform's interfaces, the store, tokens, and the one place that builds HTTP."""
