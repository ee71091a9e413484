"""The platform's interfaces, the store, tokens, and the HTTP transport."""
