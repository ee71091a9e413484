"""What is wrong with this installation, its settings, and its target."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"setup": ["tcb_ops.features.doctor.command:doctor"]},
    needs=["diagnosis"],
)
