"""`python -m signalbox.cli`, the same as the command `signalbox`."""

from signalbox.cli.main import run

if __name__ == "__main__":
    run()
