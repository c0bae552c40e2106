"""What one process is to its operating system: a member of a service, watched, told what to do, and replaced.

Above the engine and below the tools that start it (``gateways.run``, the command line, workers). Nothing here is
loaded by a CGI script.
"""

#: The environment variable in which a process that reloads hands on what the next one needs.
HANDOVER = "_GATEWAYS_HANDOVER"
