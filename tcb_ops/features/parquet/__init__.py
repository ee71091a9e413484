"""A run's rows as a Parquet file."""

from tcb_ops.kinds import Feature

FEATURE = Feature(provides={"Run.to_parquet": "tcb_ops.features.parquet.writer:write_parquet"})
