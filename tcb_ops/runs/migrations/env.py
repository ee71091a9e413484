"""Run the migrations on the connection that `tcb_ops.runs.database` has opened, in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
