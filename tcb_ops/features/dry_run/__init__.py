"""What a list's run would send, by merchant: `--dry-run` of links, upload and sync."""

from tcb_ops.kinds import Feature

FEATURE = Feature(provides={"dry_run": "tcb_ops.features.dry_run.estimates:dry_run"})
