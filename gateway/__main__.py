"""`python -m gateway` is `custos`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
