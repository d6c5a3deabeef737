"""Devices: the mesh, where data are stored, and what memory there is."""
