"""What users would have instead, as they would write it."""
