"""`python -m crosscheck` is the command `cbam`."""

import sys


def main() -> None:
    """Run the command, or say what it needs."""
    try:
        from crosscheck import cli
    except ModuleNotFoundError as error:
        sys.exit(_refuse(error))
    cli.app(prog_name="cbam")


def _refuse(error: ModuleNotFoundError) -> int:
    message = f"the command cbam needs {error.name}, which is not installed"
    print(f'{message}; pip install "cbam[crosscheck]"', file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
