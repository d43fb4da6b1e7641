"""A trained model: its features, trees, calibrations and files. Used by training and by serving."""
