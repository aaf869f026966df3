"""`python -m sttd` is `sttd`."""

from sttd.cli import main

if __name__ == "__main__":
    main()
