"""What can be set, by whom and how."""
