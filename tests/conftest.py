"""For all tests."""

from __future__ import annotations

import signal

# nohup, and a shell that starts something in the background, have it ignore signals, and so would servers that tests
# start: whoever is told to ignore a signal does.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
