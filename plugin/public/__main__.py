"""`python -m tansaku` is the command `tansaku`."""

from .plugin.cli.main import main

if __name__ == "__main__":
    main()
