"""What the command ``check`` says about a file: what its fields hold, as shapes, and which options would help."""
