"""How the bytes of a file become records: one module for each format."""
