"""The doorway: `python run.py agent=es env=CarRacing`; `--help` lists the settings."""

if __name__ == "__main__":
    import sys

    from experiments.main import main

    sys.exit(main(sys.argv[1:]))
