"""The shell: watch, cache, queue, gather, decide, execute, persist."""
