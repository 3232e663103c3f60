"""The entry point of `descore` and `python -m descore`: little of it is there before an interruption can be told."""

import sys


def main() -> None:
    """The command line."""
    try:
        from descore.cli import main as run

        run()
    except KeyboardInterrupt:  # while modules are imported or options are read; a verb reports its own
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
