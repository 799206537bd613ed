"""Everything that touches the disk: checkpoints, metrics, work directories, crystal files. The rest is pure."""
