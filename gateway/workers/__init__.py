"""Several processes that serve as one gateway: a watcher that knows, and workers that answer clients."""
