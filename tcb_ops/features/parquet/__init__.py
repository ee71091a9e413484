"""A run's rows as an Arrow stream and as a Parquet file; lists that are Arrow streams."""

from tcb_ops.kinds import Feature

_WRITER = "tcb_ops.features.parquet.writer"
FEATURE = Feature(
    provides={
        "Run.to_parquet": f"{_WRITER}:write_parquet",
        "Run.__arrow_c_stream__": f"{_WRITER}:arrow_stream",
        "arrow_texts": f"{_WRITER}:arrow_texts",
    }
)
