"""`python -m tcb_ops`."""

from tcb_ops.doors.cli import main

if __name__ == "__main__":
    main()
