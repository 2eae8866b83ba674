"""`python -m policysmith`, for launchers that start modules."""

from policysmith.cli.main import entry

if __name__ == "__main__":
    entry()
