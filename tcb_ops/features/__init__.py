"""What goes beyond the main job. Each folder is a feature: without it, everything else works, and its commands are gone."""
