"""Tests of SCGI."""
