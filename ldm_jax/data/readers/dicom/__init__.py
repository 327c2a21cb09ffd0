"""DICOM: elements, containers, planes, stacks, series."""
