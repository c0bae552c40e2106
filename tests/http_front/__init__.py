"""Tests of the development HTTP front end (a folder called http would hide the standard library's from pytest)."""
