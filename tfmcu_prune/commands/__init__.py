"""The commands of `tfmcu-prune` that write files, one module each."""
