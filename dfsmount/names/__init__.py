"""Names, directories and attributes as this client sees them, and the changes that it makes."""
