"""`python -m descore` is the same as `descore`."""

from descore.cli import main

if __name__ == "__main__":
    main()
