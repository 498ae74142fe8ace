"""`python -m mqservice` is `mqservice`."""

from mqservice.cli import main

if __name__ == "__main__":
    main()
