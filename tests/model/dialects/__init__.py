"""Tests of ``gateways/_model/dialects``: how a Response becomes bytes."""
