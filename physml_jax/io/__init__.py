"""Everything that touches the disk: checkpoints, metrics, work directories, crystal files. The rest of the package is pure."""
