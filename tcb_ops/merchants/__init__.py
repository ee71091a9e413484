"""Merchants: who has authorized the platform, which are ready, what is left of their quotas."""
