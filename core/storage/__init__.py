"""Large bodies: the object store and temporary files."""
