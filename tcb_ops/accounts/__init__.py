"""The merchants' accounts: who has authorized the platform, what stands in their way, what is left of their day."""
