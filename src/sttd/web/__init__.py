"""What sttd answers over plain HTTP."""
