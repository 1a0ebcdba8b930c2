"""Class names and templates of published evaluation sets, one JSON file a set."""
