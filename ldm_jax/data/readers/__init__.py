"""Files of scans -> volumes with their grids."""
