"""Tests of ``gateways/_model``: words and model, without I/O."""
