"""`python -m lrwd_sweep`: the command line, as the command `lrwd-sweep` runs it."""

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    with suppress(OSError):
        if not sys.flags.safe_path and os.path.samefile(sys.path[0], os.curdir):
            del sys.path[0]  # Python put it there; a file torch.py here is not the library
    from lrwd_sweep.cli import main

    main()
