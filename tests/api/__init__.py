"""Tests against one whole stack, with the stock clients of its APIs; conftest.py has the stack."""
