"""For all tests."""

from __future__ import annotations

import signal

# A shell without job control has what it starts in the background ignore SIGINT, and so would servers that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
