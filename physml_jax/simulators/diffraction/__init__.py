"""Electron diffraction by crystals: from cell, sites and symmetry to structure factors, projected potentials and Bloch waves."""
