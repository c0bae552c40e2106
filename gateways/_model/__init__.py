"""Words and model of the CGI environment: the floors every protocol stands on.

A classic CGI script imports this package for each request, so nothing here may load trio, attrs, typing,
logging, enum, re or urllib (``tests/test_imports.py`` pins the set).
"""
