"""The project's MLIR dialects, one file each: types, ops and verifiers, nothing else."""
