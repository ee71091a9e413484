"""Folders of other machines, which lists name, on this one: `--map`."""

from tcb_ops.kinds import Feature

FEATURE = Feature(provides={"file_map": "tcb_ops.features.maps.maps:path_map"})
