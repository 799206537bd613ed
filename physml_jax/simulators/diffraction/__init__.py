"""Electron diffraction by crystals: cell, sites and symmetry to structure factors, potentials and Bloch waves."""
