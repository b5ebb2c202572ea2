"""Where tasks run."""

import dask

# read by distributed when it is imported, which is below; its own handlers would say everything
# twice
dask.config.set({"logging.distributed": "error", "logging.bokeh": "error"})
