"""How rows become ends: planning, scheduling, calling, deciding, writing."""
