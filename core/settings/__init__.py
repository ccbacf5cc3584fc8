"""Settings: their models, where they are read from, their documentation."""
