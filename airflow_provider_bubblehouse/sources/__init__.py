"""Where rows come from: lists, files and queries."""
