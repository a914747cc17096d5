"""How the bytes of a file become records: one module for each format."""

# "auto" goes by the suffix of the file's name; "rejected" is the JSONL that a push writes to rejected_path.
FILE_FORMATS = ("auto", "jsonl", "json", "csv", "parquet", "rejected")
