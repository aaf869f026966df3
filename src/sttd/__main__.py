"""`python -m sttd` is `sttd`."""

from sttd.cli.main import main

if __name__ == "__main__":
    main()
