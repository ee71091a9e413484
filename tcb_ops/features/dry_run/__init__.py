"""What a run would change, by merchant: `--dry-run`."""

from tcb_ops.kinds import Feature

FEATURE = Feature(provides={"dry_run": "tcb_ops.features.dry_run.rehearsal:dry_run"})
