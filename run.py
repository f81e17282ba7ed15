"""Train one network on one data set and leave one row: python run.py model=mlp data=mnist rank=8."""

# Tab completion works for scripts in which Hydra's shell function finds the word @hydra.main.
import sys

from lottalora.cli.run import main

if __name__ == "__main__":
    main(sys.argv[1:])
