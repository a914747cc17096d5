"""The analysis of the command ``check``: shapes of a file's values, and options that would make rows valid."""
