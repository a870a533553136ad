"""`python -m crosscheck` is the command `cbam`."""

from crosscheck.cli import main

if __name__ == "__main__":
    main()
