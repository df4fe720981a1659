"""``python -m gateway.cli``: the ``failsoft`` command without its script."""

from gateway.cli.main import main

if __name__ == "__main__":
    main()
