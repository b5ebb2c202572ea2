"""`python -m mapper` is `mapper`."""

from mapper.cli.app import main

if __name__ == "__main__":
    main()
